//! Settings from a file, the environment and a program's flags.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng as _;
use serde::Deserialize;
use vmdt_control::RegistryConfig;
use vmdt_seal::keyfile;

use crate::builder::{Limits, ServerBuilder};
use crate::error::SettingsError;
use crate::server::Server;
use crate::store::RedbStore;

macro_rules! settings {
    ($($(#[$doc:meta])* $name:ident: $type:ty, $variable:literal, $needed:literal;)*) => {
        /// Everything that can be set, each `None` where it is not.
        ///
        /// A program fills one from its flags and lays it over the others:
        /// `flags.over(environment).over(file)`. In a file the names are those of the fields, in
        /// the environment the same in capitals with `VMDT_` before. Unknown names in a file are
        /// errors.
        ///
        /// ```
        /// use vmdt_server::Settings;
        ///
        /// let file = Settings::from_toml("plain = \"127.0.0.1:8080\"\nmax_clusters = 100")?;
        /// let environment = Settings::from_variables([("VMDT_MAX_CLUSTERS", "200")])?;
        /// let flags = Settings { rate: Some(50), ..Settings::default() };
        /// let settings = flags.over(environment).over(file);
        /// assert_eq!(settings.max_clusters, Some(200));
        /// assert_eq!(settings.plain, Some("127.0.0.1:8080".parse()?));
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        #[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct Settings {
            $($(#[$doc])* pub $name: Option<$type>,)*
        }

        impl Settings {
            /// These where they are set, the others elsewhere.
            #[must_use]
            pub fn over(self, lower: Settings) -> Settings {
                Settings { $($name: self.$name.or(lower.$name),)* }
            }

            /// From variables, of which those that are not ours are ignored.
            ///
            /// # Errors
            /// One of ours does not hold what it has to.
            pub fn from_variables<K: AsRef<str>, V: AsRef<str>>(
                variables: impl IntoIterator<Item = (K, V)>,
            ) -> Result<Settings, SettingsError> {
                let mut settings = Settings::default();
                for (name, value) in variables {
                    let (name, value) = (name.as_ref(), value.as_ref());
                    match name {
                        $($variable => settings.$name = Some(variable(name, value, $needed)?),)*
                        _ => {}
                    }
                }
                Ok(settings)
            }
        }
    };
}

settings! {
    /// Where to listen for profile 1.1 under TLS.
    tls: SocketAddr, "VMDT_TLS", "an address and port";
    /// Where to listen for profile 1.0, unprotected.
    plain: SocketAddr, "VMDT_PLAIN", "an address and port";
    /// The file with the server's identity key; it is created if it is not there.
    identity: PathBuf, "VMDT_IDENTITY", "a path";
    /// The file with the state; without one a restart forgets it.
    store: PathBuf, "VMDT_STORE", "a path";
    /// The members of the etcd in which several servers keep their state, instead of `store`:
    /// URLs with commas between. Needs the feature `etcd`.
    etcd: String, "VMDT_ETCD", "URLs with commas between";
    /// What the keys there begin with.
    etcd_prefix: String, "VMDT_ETCD_PREFIX", "a text";
    /// Where to listen for HTTP.
    http: SocketAddr, "VMDT_HTTP", "an address and port";
    /// The file with the bearer token for `/clusters.json`, in its first line.
    http_token_file: PathBuf, "VMDT_HTTP_TOKEN_FILE", "a path";
    /// Connections open at once.
    max_connections: usize, "VMDT_MAX_CONNECTIONS", "a number";
    /// Clients known at once.
    max_clients: usize, "VMDT_MAX_CLIENTS", "a number";
    /// Clusters at once.
    max_clusters: usize, "VMDT_MAX_CLUSTERS", "a number";
    /// The most members of a cluster.
    max_members: u16, "VMDT_MAX_MEMBERS", "a number";
    /// Octets of a line.
    max_line: usize, "VMDT_MAX_LINE", "a number of octets";
    /// Octets written for a client that it has not read.
    max_backlog: usize, "VMDT_MAX_BACKLOG", "a number of octets";
    /// Requests per second and client.
    rate: u32, "VMDT_RATE", "a number";
    /// Requests at once and client.
    burst: u32, "VMDT_BURST", "a number";
    /// Seconds until the first line of a connection.
    first_line_seconds: u64, "VMDT_FIRST_LINE_SECONDS", "a number of seconds";
    /// Seconds without a line after which a connection is closed.
    idle_seconds: u64, "VMDT_IDLE_SECONDS", "a number of seconds";
    /// Seconds that a member without a connection keeps its place.
    grace_seconds: u64, "VMDT_GRACE_SECONDS", "a number of seconds";
    /// The same in clusters that have a descriptor.
    grace_sealed_seconds: u64, "VMDT_GRACE_SEALED_SECONDS", "a number of seconds";
    /// Octets that a client may relay per window.
    relay_quota: u64, "VMDT_RELAY_QUOTA", "a number of octets";
    /// The same for datagrams between members that cannot reach each other.
    relay_datagram_quota: u64, "VMDT_RELAY_DATAGRAM_QUOTA", "a number of octets";
    /// Seconds of such a window.
    relay_window_seconds: u64, "VMDT_RELAY_WINDOW_SECONDS", "a number of seconds";
    /// Connections from one address.
    connections_per_address: usize, "VMDT_CONNECTIONS_PER_ADDRESS", "a number";
    /// Connections that an address opens per second.
    opens_per_second: u32, "VMDT_OPENS_PER_SECOND", "a number";
    /// Connections that an address opens at once.
    opens_at_once: u32, "VMDT_OPENS_AT_ONCE", "a number";
    /// Seconds that a TLS handshake may take.
    handshake_seconds: u64, "VMDT_HANDSHAKE_SECONDS", "a number of seconds";
    /// Seconds that closing may take.
    drain_seconds: u64, "VMDT_DRAIN_SECONDS", "a number of seconds";
}

fn variable<T: FromStr>(name: &str, value: &str, needed: &'static str) -> Result<T, SettingsError> {
    value.parse().map_err(|_| SettingsError::Environment {
        name: name.to_owned(),
        value: value.to_owned(),
        needed,
    })
}

impl Settings {
    /// From the text of a file.
    ///
    /// # Errors
    /// It is no TOML, has an unknown name, or a value of another kind; the error says where.
    pub fn from_toml(text: &str) -> Result<Settings, SettingsError> {
        toml::from_str(text).map_err(|error| SettingsError::Toml(error.to_string()))
    }

    /// From a file.
    ///
    /// # Errors
    /// It cannot be read, or as for [`from_toml`](Self::from_toml).
    pub fn from_file(path: &Path) -> Result<Settings, SettingsError> {
        let text = std::fs::read_to_string(path).map_err(|cause| SettingsError::Read {
            path: path.to_owned(),
            cause,
        })?;
        Settings::from_toml(&text).map_err(|error| match error {
            SettingsError::Toml(text) => SettingsError::Toml(format!("{}: {text}", path.display())),
            other => other,
        })
    }

    /// From the environment of the process.
    ///
    /// # Errors
    /// One of our variables does not hold what it has to.
    pub fn from_environment() -> Result<Settings, SettingsError> {
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        Settings::from_variables(variables)
    }

    /// A server as it is set here: reads the key file, the token file and opens the store.
    ///
    /// # Errors
    /// One of these cannot be used.
    pub fn into_builder(self) -> Result<ServerBuilder, SettingsError> {
        let registry = self.registry();
        let limits = self.limits();
        let mut builder = Server::builder().registry(registry).limits(limits);
        if let Some(address) = self.plain {
            builder = builder.plain(address);
        }
        if let Some(address) = self.tls {
            let path = self.identity.as_ref().ok_or(SettingsError::NoIdentity)?;
            let mut seed = [0; 32];
            getrandom::fill(&mut seed).map_err(SettingsError::Randomness)?;
            let mut rng = ChaCha20Rng::from_seed(seed);
            let (identity, origin) =
                keyfile::load_or_create(path, &mut rng).map_err(SettingsError::Identity)?;
            tracing::info!(id = %identity.node_id(), ?origin, "the server's identity");
            builder = builder.tls(address, &identity.seed());
        }
        if let Some(address) = self.http {
            let token = self.http_token_file.as_deref().map(token).transpose()?;
            builder = builder.http(address, token);
        }
        if let Some(endpoints) = &self.etcd {
            if self.store.is_some() {
                return Err(SettingsError::TwoStores);
            }
            builder = shared(builder, endpoints, self.etcd_prefix.as_deref())?;
        }
        if let Some(path) = self.store {
            let store = RedbStore::open(&path);
            builder = builder.store(store.map_err(|cause| SettingsError::Store { path, cause })?);
        }
        Ok(builder)
    }

    fn registry(&self) -> RegistryConfig {
        let seconds = Duration::from_secs;
        let mut config = RegistryConfig::new();
        if let Some(limit) = self.max_connections {
            config = config.max_connections(limit);
        }
        if let Some(limit) = self.max_clients {
            config = config.max_clients(limit);
        }
        if let Some(limit) = self.max_clusters {
            config = config.max_clusters(limit);
        }
        if let Some(limit) = self.max_members {
            config = config.max_members(limit);
        }
        if let Some(octets) = self.max_line {
            config = config.max_line(octets);
        }
        if let Some(octets) = self.max_backlog {
            config = config.max_backlog(octets);
        }
        if self.rate.is_some() || self.burst.is_some() {
            config = config.rate(self.rate.unwrap_or(5_000), self.burst.unwrap_or(10_000));
        }
        if let Some(time) = self.first_line_seconds {
            config = config.first_line(seconds(time));
        }
        if let Some(time) = self.idle_seconds {
            config = config.idle(seconds(time));
        }
        if let Some(time) = self.grace_seconds {
            config = config.grace(seconds(time));
        }
        if let Some(time) = self.grace_sealed_seconds {
            config = config.grace_sealed(seconds(time));
        }
        if self.relay_quota.is_some() || self.relay_window_seconds.is_some() {
            let quota = self.relay_quota.unwrap_or(4 * 1024 * 1024 * 1024);
            let window = self.relay_window_seconds.unwrap_or(24 * 3_600);
            config = config.relay_quota(quota, seconds(window));
        }
        if let Some(octets) = self.relay_datagram_quota {
            config = config.relay_datagram_quota(octets);
        }
        config
    }

    fn limits(&self) -> Limits {
        let standard = Limits::default();
        let time = |set: Option<u64>, standard| set.map_or(standard, Duration::from_secs);
        Limits {
            connections_per_address: self
                .connections_per_address
                .unwrap_or(standard.connections_per_address),
            opens_per_second: self.opens_per_second.unwrap_or(standard.opens_per_second),
            opens_at_once: self.opens_at_once.unwrap_or(standard.opens_at_once),
            handshake: time(self.handshake_seconds, standard.handshake),
            drain: time(self.drain_seconds, standard.drain),
        }
    }
}

/// Where servers that share an etcd with other programs have their keys.
#[cfg(feature = "etcd")]
const PREFIX: &str = "/vmdt/";

#[cfg(feature = "etcd")]
fn shared(
    builder: ServerBuilder,
    endpoints: &str,
    prefix: Option<&str>,
) -> Result<ServerBuilder, SettingsError> {
    let endpoints = endpoints.split(',').map(str::trim);
    let endpoints = endpoints.filter(|url| !url.is_empty()).map(str::to_owned);
    Ok(builder.etcd(endpoints.collect(), prefix.unwrap_or(PREFIX)))
}

#[cfg(not(feature = "etcd"))]
fn shared(_: ServerBuilder, _: &str, _: Option<&str>) -> Result<ServerBuilder, SettingsError> {
    Err(SettingsError::NoEtcd)
}

fn token(path: &Path) -> Result<String, SettingsError> {
    let fail = |what: String| SettingsError::Token {
        path: path.to_owned(),
        what,
    };
    let text = std::fs::read_to_string(path).map_err(|cause| fail(cause.to_string()))?;
    match text.lines().next().map(str::trim) {
        Some(token) if token.len() >= 16 => Ok(token.to_owned()),
        _ => Err(fail(
            "a token of at least 16 characters is needed".to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_go_before_the_environment_and_that_before_the_file() {
        let file = "max_clusters = 1\nmax_clients = 1\nrate = 1\nstore = \"/state\"";
        let file = Settings::from_toml(file).unwrap();
        let variables = [
            ("VMDT_MAX_CLIENTS", "2"),
            ("VMDT_RATE", "2"),
            ("HOME", "/root"),
        ];
        let environment = Settings::from_variables(variables).unwrap();
        let flags = Settings {
            rate: Some(3),
            ..Settings::default()
        };
        let settings = flags.over(environment).over(file);
        let found = (settings.max_clusters, settings.max_clients, settings.rate);
        assert_eq!(found, (Some(1), Some(2), Some(3)));
        assert_eq!(settings.store, Some("/state".into()));
        assert_eq!(settings.tls, None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let errors = [
            ("colour = 1", "colour"),
            ("plain = 8080", "plain"),
            ("rate = -1", "rate"),
            ("rate", "line 1"),
        ];
        for (text, named) in errors {
            let error = Settings::from_toml(text).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
        let error = Settings::from_variables([("VMDT_TLS", "here")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "VMDT_TLS: \"here\" is not an address and port"
        );
        let tls = Settings {
            tls: Some("127.0.0.1:0".parse().unwrap()),
            ..Settings::default()
        };
        assert!(matches!(tls.into_builder(), Err(SettingsError::NoIdentity)));
    }

    #[test]
    fn a_server_has_one_store_and_etcd_only_where_it_is_built_in() {
        let etcd = Settings {
            etcd: Some("http://127.0.0.1:1, http://127.0.0.1:2".to_owned()),
            ..Settings::default()
        };
        let both = Settings {
            store: Some("/state".into()),
            ..etcd.clone()
        };
        assert!(matches!(both.into_builder(), Err(SettingsError::TwoStores)));
        let alone = etcd.into_builder();
        if cfg!(feature = "etcd") {
            assert!(alone.is_ok());
        } else {
            assert!(matches!(alone, Err(SettingsError::NoEtcd)));
        }
    }

    #[test]
    fn a_short_token_is_no_token() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "secret\n").unwrap();
        assert!(token(&path).is_err());
        std::fs::write(&path, "0123456789abcdef\nmore\n").unwrap();
        assert_eq!(token(&path).unwrap(), "0123456789abcdef");
        assert!(token(&folder.path().join("none")).is_err());
    }
}
