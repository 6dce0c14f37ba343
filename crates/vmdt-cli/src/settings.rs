//! Settings: flags over `VMDT_*` variables over `config.toml`.
//!
//! Every setting has one name: `stall_timeout` in the file is `VMDT_STALL_TIMEOUT` in the
//! environment. Unknown names in the file are errors; unknown variables are not ours to judge.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::failure::{Exit, Failure, Outcome};
use crate::net::mode::ModeName;
use crate::text::{parse_octets, parse_seconds};

/// The largest configuration file that is read.
const MAX_FILE: u64 = 1 << 20;

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Default,
    File,
    Environment,
    Flag,
}

impl Source {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Source::Default => "default",
            Source::File => "file",
            Source::Environment => "environment",
            Source::Flag => "flag",
        }
    }
}

/// One setting: its name, what holds when nothing is said, what is accepted, and what it is for.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) default: &'static str,
    check: fn(&str) -> Result<(), String>,
    pub(crate) about: &'static str,
}

fn any(_: &str) -> Result<(), String> {
    Ok(())
}

fn flag(text: &str) -> Result<(), String> {
    parse_flag(text).map(drop)
}

fn parse_flag(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" | "" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

fn seconds(text: &str) -> Result<(), String> {
    parse_seconds(text).map(drop)
}

fn number<const MIN: u64, const MAX: u64>(text: &str) -> Result<(), String> {
    match text.parse::<u64>() {
        Ok(value) if (MIN..=MAX).contains(&value) => Ok(()),
        _ => Err(format!("{text:?} is not a number from {MIN} to {MAX}")),
    }
}

fn optional_octets(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Ok(());
    }
    parse_octets(text).map(drop)
}

fn address(text: &str) -> Result<(), String> {
    text.parse::<IpAddr>()
        .map(drop)
        .map_err(|_| format!("{text:?} is not an IP address"))
}

fn mode(text: &str) -> Result<(), String> {
    text.parse::<ModeName>().map(drop)
}

fn priority(text: &str) -> Result<(), String> {
    text.parse::<crate::net::mode::Priority>().map(drop)
}

/// All settings, in the order `vmdt config` lists them.
pub(crate) const KEYS: &[Key] = &[
    Key {
        name: "server",
        default: "",
        check: any,
        about: "servers, vmdt://KEY@host:port, separated by commas",
    },
    Key {
        name: "server_file",
        default: "",
        check: any,
        about: "a file with the server, as `vmdt server --url-file` writes it; waited for",
    },
    Key {
        name: "identity",
        default: "",
        check: any,
        about: "this node's key file; beside the receipts when empty, `none`: a new key each time",
    },
    Key {
        name: "name",
        default: "",
        check: any,
        about: "what members see you as; in chats the login name when empty",
    },
    Key {
        name: "open",
        default: "false",
        check: flag,
        about: "speak profile 1.0, without any protection",
    },
    Key {
        name: "id",
        default: "",
        check: any,
        about: "profile 1.0: this node's id; a random one when empty",
    },
    Key {
        name: "downloads",
        default: ".",
        check: any,
        about: "where received files go",
    },
    Key {
        name: "bind",
        default: "0.0.0.0",
        check: address,
        about: "the local address of sockets",
    },
    Key {
        name: "discovery",
        default: "true",
        check: flag,
        about: "find and be found on the local network",
    },
    Key {
        name: "discovery_port",
        default: "18684",
        check: number::<1, 65535>,
        about: "UDP port of discovery",
    },
    Key {
        name: "default_mode",
        default: "normal",
        check: mode,
        about: "transfer mode",
    },
    Key {
        name: "bucket_size",
        default: "",
        check: optional_octets,
        about: "token bucket: octets that may leave at once",
    },
    Key {
        name: "rate",
        default: "",
        check: optional_octets,
        about: "token bucket: octets per second",
    },
    Key {
        name: "aimd_window",
        default: "16",
        check: number::<1, 1048576>,
        about: "AIMD: first window, KiB",
    },
    Key {
        name: "aimd_min_window",
        default: "4",
        check: number::<1, 1048576>,
        about: "AIMD: smallest window, KiB",
    },
    Key {
        name: "aimd_max_window",
        default: "64",
        check: number::<1, 1048576>,
        about: "AIMD: largest window, KiB",
    },
    Key {
        name: "aimd_timeout",
        default: "true",
        check: flag,
        about: "AIMD: take what is overdue for lost",
    },
    Key {
        name: "aimd_dupack",
        default: "true",
        check: flag,
        about: "AIMD: take what later packets overtook for lost",
    },
    Key {
        name: "priority",
        default: "normal",
        check: priority,
        about: "QoS: normal, high or highest",
    },
    Key {
        name: "parallel_threads",
        default: "4",
        check: number::<1, 32>,
        about: "parallel mode: streams at once",
    },
    Key {
        name: "max_retries",
        default: "3",
        check: number::<0, 100>,
        about: "attempts to reach a server beyond the first",
    },
    Key {
        name: "connection_timeout",
        default: "3.0",
        check: seconds,
        about: "how long a connection may take, seconds",
    },
    Key {
        name: "stall_timeout",
        default: "30",
        check: seconds,
        about: "how long a transfer may stand still, seconds",
    },
    Key {
        name: "health_check_interval",
        default: "10.0",
        check: seconds,
        about: "client: time between health checks, seconds",
    },
    Key {
        name: "gossip_interval",
        default: "5.0",
        check: seconds,
        about: "client: time between looks for peers, seconds",
    },
    Key {
        name: "disable_gossip",
        default: "false",
        check: flag,
        about: "client: do not look for peers by itself",
    },
    Key {
        name: "auto_detect_files",
        default: "false",
        check: flag,
        about: "client: send a file when the text names one",
    },
];

/// The settings of this run.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    values: BTreeMap<&'static str, (String, Source)>,
    /// The file they were read from, whether or not it is there.
    pub(crate) file: PathBuf,
}

fn key(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

fn home() -> PathBuf {
    env::home_dir().unwrap_or_else(|| PathBuf::from("."))
}

/// `$NAME/vmdt`, else `~/fallback/vmdt`. The XDG rules say that a relative path is to be ignored.
fn xdg(name: &str, fallback: &str) -> PathBuf {
    match env::var_os(name).map(PathBuf::from) {
        Some(path) if path.is_absolute() => path.join("vmdt"),
        _ => home().join(fallback).join("vmdt"),
    }
}

/// Where unfinished sends, receipts and the history of lines are kept.
pub(crate) fn state_dir() -> PathBuf {
    match env::var_os("VMDT_STATE_DIR") {
        Some(path) if !path.is_empty() => PathBuf::from(path),
        _ => xdg("XDG_STATE_HOME", ".local/state"),
    }
}

/// The folder of `config.toml`.
pub(crate) fn config_dir() -> PathBuf {
    xdg("XDG_CONFIG_HOME", ".config")
}

impl Settings {
    /// Reads the file and the environment. `file` is the one given by `--config`, which must be
    /// there; the usual one may be missing.
    pub(crate) fn load(file: Option<&Path>) -> Outcome<Settings> {
        let given = file.map(Path::to_owned).or_else(|| {
            env::var_os("VMDT_CONFIG")
                .filter(|path| !path.is_empty())
                .map(PathBuf::from)
        });
        let path = given
            .clone()
            .unwrap_or_else(|| config_dir().join("config.toml"));
        let text = match fs::metadata(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && given.is_none() => String::new(),
            Err(e) => return Err(Failure::disk(&e, "reading", &path)),
            Ok(meta) if meta.len() > MAX_FILE => {
                return Err(Failure::usage(format!(
                    "{} is larger than 1 MiB",
                    path.display()
                )));
            }
            Ok(_) => fs::read_to_string(&path).map_err(|e| Failure::disk(&e, "reading", &path))?,
        };
        let variables = env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        let mut settings = Settings::build(&text, &path.display().to_string(), variables)?;
        settings.file = path;
        Ok(settings)
    }

    fn build(
        text: &str,
        from: &str,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Outcome<Settings> {
        let mut settings = Settings {
            values: KEYS
                .iter()
                .map(|key| (key.name, (key.default.to_owned(), Source::Default)))
                .collect(),
            file: PathBuf::new(),
        };
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| {
            let line = e.span().map_or(1, |span| {
                text.get(..span.start)
                    .unwrap_or_default()
                    .matches('\n')
                    .count()
                    + 1
            });
            Failure::usage(format!("{from}, line {line}: {}", e.message()))
        })?;
        for (name, value) in table {
            let value = plain(&value).ok_or_else(|| {
                Failure::usage(format!(
                    "{from}: {name} must be text, a number, true or false, or a list of them"
                ))
            })?;
            settings
                .set(&name, value, Source::File)
                .map_err(|e| Failure::new(Exit::Usage, format!("{from}: {e}")))?;
        }
        for (name, value) in variables {
            let Some(name) = name.strip_prefix("VMDT_") else {
                continue;
            };
            let name = name.to_ascii_lowercase();
            if key(&name).is_some() {
                settings
                    .set(&name, value, Source::Environment)
                    .map_err(|e| {
                        Failure::new(
                            Exit::Usage,
                            format!("VMDT_{}: {e}", name.to_ascii_uppercase()),
                        )
                    })?;
            }
        }
        Ok(settings)
    }

    /// Changes a value, if it is accepted.
    pub(crate) fn set(&mut self, name: &str, value: String, source: Source) -> Outcome<()> {
        let Some(key) = key(name) else {
            return Err(Failure::usage(format!("there is no setting {name:?}"))
                .hint("`vmdt config` lists them"));
        };
        (key.check)(&value).map_err(|why| Failure::usage(format!("{name}: {why}")))?;
        self.values.insert(key.name, (value, source));
        Ok(())
    }

    /// Takes a flag's value where it was given.
    pub(crate) fn flag(&mut self, name: &str, value: Option<impl ToString>) -> Outcome<()> {
        match value {
            Some(value) => self.set(name, value.to_string(), Source::Flag),
            None => Ok(()),
        }
    }

    /// The text of a setting and where it came from.
    pub(crate) fn entry(&self, name: &str) -> (&str, Source) {
        self.values
            .get(name)
            .map_or(("", Source::Default), |(value, source)| {
                (value.as_str(), *source)
            })
    }

    pub(crate) fn text(&self, name: &str) -> &str {
        self.entry(name).0
    }

    // Values are checked when they are set, so the fallbacks below are never reached.

    pub(crate) fn is_on(&self, name: &str) -> bool {
        parse_flag(self.text(name)).unwrap_or_default()
    }

    pub(crate) fn number(&self, name: &str) -> u64 {
        self.text(name).parse().unwrap_or_default()
    }

    pub(crate) fn time(&self, name: &str) -> Duration {
        parse_seconds(self.text(name)).unwrap_or_default()
    }

    pub(crate) fn bind(&self) -> IpAddr {
        self.text("bind")
            .parse()
            .unwrap_or(IpAddr::from([0, 0, 0, 0]))
    }

    /// The configured servers; none at all is no error here.
    pub(crate) fn servers(&self) -> Vec<String> {
        self.text("server")
            .split(',')
            .map(str::trim)
            .filter(|server| !server.is_empty())
            .map(str::to_owned)
            .collect()
    }

    pub(crate) fn id(&self) -> Option<String> {
        Some(self.text("id").to_owned()).filter(|id| !id.is_empty())
    }

    /// The name for people; in talk the login name where none is set.
    pub(crate) fn name(&self, talk: bool) -> String {
        let name = self.text("name");
        if !name.is_empty() || !talk {
            return name.to_owned();
        }
        let login = ["USER", "LOGNAME", "USERNAME"]
            .into_iter()
            .find_map(|variable| env::var(variable).ok().filter(|name| !name.is_empty()));
        login.unwrap_or_default()
    }

    pub(crate) fn downloads(&self) -> PathBuf {
        let text = self.text("downloads");
        match text.strip_prefix("~/") {
            Some(rest) => home().join(rest),
            None => PathBuf::from(text),
        }
    }
}

/// A value of the file as text.
fn plain(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(on) => Some(on.to_string()),
        toml::Value::Array(values) => {
            let parts: Option<Vec<_>> = values.iter().map(plain).collect();
            Some(parts?.join(","))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter()
            .map(|(n, v)| ((*n).into(), (*v).into()))
            .collect()
    }

    #[test]
    fn the_environment_wins_over_the_file_and_a_flag_over_both() {
        let text = "server = [\"a:1\", \"b:2\"]\nstall_timeout = 7\n";
        let mut settings =
            Settings::build(text, "f", variables(&[("VMDT_STALL_TIMEOUT", "9.5")])).unwrap();
        assert_eq!(settings.servers(), ["a:1", "b:2"]);
        assert_eq!(settings.time("stall_timeout"), Duration::from_millis(9500));
        assert_eq!(settings.entry("stall_timeout").1, Source::Environment);
        settings.flag("server", Some("c:3")).unwrap();
        settings.flag("id", None::<&str>).unwrap();
        assert_eq!(settings.servers(), ["c:3"]);
        assert_eq!(settings.number("aimd_window"), 16);
        assert_eq!(settings.entry("aimd_window").1, Source::Default);
    }

    #[test]
    fn the_variables_of_the_original_program_are_accepted() {
        let names = [
            ("VMDT_DEFAULT_MODE", "aimd"),
            ("VMDT_GOSSIP_INTERVAL", "10.0"),
            ("VMDT_DISABLE_GOSSIP", "true"),
            ("VMDT_AIMD_WINDOW", "32"),
            ("VMDT_AIMD_MIN_WINDOW", "8"),
            ("VMDT_AIMD_MAX_WINDOW", "128"),
            ("VMDT_PARALLEL_THREADS", "8"),
            ("VMDT_MAX_RETRIES", "5"),
            ("VMDT_CONNECTION_TIMEOUT", "5.0"),
            ("VMDT_HEALTH_CHECK_INTERVAL", "20.0"),
        ];
        let settings = Settings::build("", "f", variables(&names)).unwrap();
        for (name, value) in names {
            let name = name.trim_start_matches("VMDT_").to_ascii_lowercase();
            assert_eq!(settings.entry(&name), (value, Source::Environment));
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let error = Settings::build("a = 1", "f.toml", []).unwrap_err();
        assert!(
            error.message.contains("f.toml") && error.message.contains("\"a\""),
            "{error}"
        );
        let error = Settings::build("\n\nserver = [", "f.toml", []).unwrap_err();
        assert!(error.message.contains("line 3"), "{error}");
        let error =
            Settings::build("", "f", variables(&[("VMDT_DEFAULT_MODE", "fast")])).unwrap_err();
        assert!(
            error.message.contains("VMDT_DEFAULT_MODE") && error.message.contains("aimd"),
            "{error}"
        );
        assert!(Settings::build("", "f", variables(&[("VMDT_OTHER", "x")])).is_ok());
        assert!(Settings::build("server = { a = 1 }", "f", []).is_err());
    }

    #[test]
    fn every_default_is_accepted_by_its_own_check() {
        for key in KEYS {
            assert_eq!((key.check)(key.default), Ok(()), "{}", key.name);
        }
    }
}
