//! The configurations of either side.

use std::sync::Arc;

use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::ServerName;
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};

use crate::error::ConfigError;
use crate::identity::Identity;
use crate::verify::{AnyKey, Pinned};

/// The name of the protocol inside, which both sides must agree upon (RFC 7301).
pub const ALPN: &[u8] = b"vmdt/1.1";

/// What a server accepts connections with. It proves `identity`, and demands that the client
/// proves a key too: [`peer_key`](crate::peer_key) tells which.
///
/// # Errors
/// The cryptography library does not fit the protocol; not a matter of the arguments.
pub fn server_config(identity: &Identity) -> Result<Arc<ServerConfig>, ConfigError> {
    let provider = provider();
    let verifier = AnyKey::new(&provider);
    let keys = AlwaysResolvesServerRawPublicKeys::new(identity.certified());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|_| ConfigError::Provider)?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(keys));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// What a client connects with. It proves `identity` and accepts a server only if that proves
/// the key `server`.
///
/// # Errors
/// The cryptography library does not fit the protocol; not a matter of the arguments.
pub fn client_config(
    identity: &Identity,
    server: &[u8; 32],
) -> Result<Arc<ClientConfig>, ConfigError> {
    let provider = provider();
    let verifier = Pinned::new(*server, &provider);
    let keys = AlwaysResolvesClientRawPublicKeys::new(identity.certified());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|_| ConfigError::Provider)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(keys));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    config.enable_early_data = false;
    Ok(Arc::new(config))
}

/// What to name the server where rustls asks for a name: it is neither sent nor checked.
#[must_use]
pub fn server_name() -> ServerName<'static> {
    ServerName::IpAddress(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED).into())
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}
