//! Transfer modes: names for settings of the transport underneath.

use std::str::FromStr;
use std::sync::Arc;

use clap::ValueEnum;
use vmdt_rdt::congestion::NewRenoConfig;

use crate::cli::ModeArgs;
use crate::failure::{Failure, Outcome};
use crate::settings::Settings;

/// Octets of a full datagram: what the transport counts its AIMD window in.
const DATAGRAM: u64 = 1472;
/// Streams at once when nothing is said.
const STREAMS: usize = 8;

/// How a transfer uses the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ModeName {
    /// The transport's own congestion controller
    Normal,
    /// A rate that is not exceeded
    TokenBucket,
    /// Additive increase, multiplicative decrease, with your windows
    Aimd,
    /// A priority among transfers
    Qos,
    /// A chosen number of streams at once
    Parallel,
    /// Several receivers
    Multicast,
}

/// A priority among transfers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Priority {
    /// As much as others
    Normal,
    /// More than normal
    High,
    /// More than high
    Highest,
}

macro_rules! named {
    ($type:ty) => {
        impl FromStr for $type {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                <Self as ValueEnum>::from_str(text, true).map_err(|_| {
                    let names: Vec<_> = Self::value_variants()
                        .iter()
                        .map(ToString::to_string)
                        .collect();
                    format!("{text:?} is none of {}", names.join(", "))
                })
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let name = self.to_possible_value();
                f.write_str(name.as_ref().map_or("", |name| name.get_name()))
            }
        }
    };
}
named!(ModeName);
named!(Priority);

/// A mode with its numbers.
#[derive(Debug, Clone)]
pub(crate) struct Mode {
    pub(crate) name: ModeName,
    /// Frames of a transfer that are under way at once.
    pub(crate) streams: usize,
    /// AIMD windows in KiB: first, smallest, largest.
    windows: (u64, u64, u64),
}

impl Mode {
    /// What the flags and the settings come to.
    ///
    /// # Errors
    /// An option that does not belong to the mode, a number out of bounds, or something the
    /// transport of this node cannot do.
    pub(crate) fn resolve(args: &ModeArgs, settings: &Settings) -> Outcome<Mode> {
        let name = match args.mode {
            Some(name) => name,
            None => implied(args).map_or_else(
                || {
                    settings
                        .text("default_mode")
                        .parse()
                        .map_err(Failure::usage)
                },
                Ok,
            )?,
        };
        let foreign = [
            (args.bucket.is_some(), "--bucket", ModeName::TokenBucket),
            (args.rate.is_some(), "--rate", ModeName::TokenBucket),
            (args.window.is_some(), "--window", ModeName::Aimd),
            (args.min_window.is_some(), "--min-window", ModeName::Aimd),
            (args.max_window.is_some(), "--max-window", ModeName::Aimd),
            (args.no_timeout, "--no-timeout", ModeName::Aimd),
            (args.no_dupack, "--no-dupack", ModeName::Aimd),
            (args.priority.is_some(), "--priority", ModeName::Qos),
            (args.threads.is_some(), "--threads", ModeName::Parallel),
        ];
        if let Some((_, option, mode)) = foreign
            .iter()
            .find(|(given, _, mode)| *given && *mode != name)
        {
            return Err(Failure::usage(format!(
                "{option} belongs to --mode {mode}, not to {name}"
            )));
        }
        match name {
            ModeName::TokenBucket => {
                return Err(unavailable(
                    "a rate limit",
                    "--mode aimd --max-window bounds what is in flight",
                ));
            }
            ModeName::Qos => {
                return Err(unavailable("a priority", "--mode aimd gives way to others"));
            }
            ModeName::Aimd if args.no_timeout || args.no_dupack => {
                return Err(unavailable(
                    "switching off a detection of loss",
                    "leave the switch out",
                ));
            }
            _ => {}
        }
        let threads = args
            .threads
            .unwrap_or_else(|| settings.number("parallel_threads"));
        if !(1..=32).contains(&threads) {
            return Err(Failure::usage(format!(
                "--threads must lie in 1..=32, not {threads}"
            )));
        }
        let mode = Mode {
            name,
            streams: if name == ModeName::Parallel {
                threads as usize
            } else {
                STREAMS
            },
            windows: (
                args.window
                    .unwrap_or_else(|| settings.number("aimd_window")),
                args.min_window
                    .unwrap_or_else(|| settings.number("aimd_min_window")),
                args.max_window
                    .unwrap_or_else(|| settings.number("aimd_max_window")),
            ),
        };
        mode.transport()?;
        Ok(mode)
    }

    /// The transport's settings for it; `None` where its own are right.
    pub(crate) fn transport(&self) -> Outcome<Option<vmdt_node::TransportConfig>> {
        if self.name != ModeName::Aimd {
            return Ok(None);
        }
        let datagrams =
            |kib: u64| u32::try_from((kib << 10).div_ceil(DATAGRAM)).unwrap_or(u32::MAX);
        let (first, smallest, largest) = self.windows;
        let mut windows = NewRenoConfig::default();
        windows
            // the transport never goes below four datagrams
            .set_window(datagrams(first).max(4), datagrams(smallest).max(4), datagrams(largest).max(4))
            .map_err(|_| {
                Failure::usage(format!(
                    "the windows of AIMD must rise: smallest {smallest} KiB, first {first} KiB, largest {largest} KiB"
                ))
            })?;
        let mut config = vmdt_node::core::default_transport();
        config.set_congestion(Arc::new(windows));
        Ok(Some(config))
    }
}

/// The mode that the options given belong to, when no mode is named.
fn implied(args: &ModeArgs) -> Option<ModeName> {
    if args.bucket.is_some() || args.rate.is_some() {
        Some(ModeName::TokenBucket)
    } else if args.window.is_some()
        || args.min_window.is_some()
        || args.max_window.is_some()
        || args.no_timeout
        || args.no_dupack
    {
        Some(ModeName::Aimd)
    } else if args.priority.is_some() {
        Some(ModeName::Qos)
    } else if args.threads.is_some() {
        Some(ModeName::Parallel)
    } else {
        None
    }
}

fn unavailable(what: &str, instead: &str) -> Failure {
    Failure::usage(format!(
        "{what} is a setting that this node's transport does not offer to programs"
    ))
    .hint(instead)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn settings() -> Settings {
        Settings::load(Some(Path::new("/dev/null"))).unwrap()
    }

    #[test]
    fn options_choose_the_mode_they_belong_to() {
        let args = ModeArgs {
            window: Some(32),
            max_window: Some(128),
            ..ModeArgs::default()
        };
        let mode = Mode::resolve(&args, &settings()).unwrap();
        assert_eq!((mode.name, mode.windows), (ModeName::Aimd, (32, 4, 128)));
        assert!(mode.transport().unwrap().is_some());
        let args = ModeArgs {
            threads: Some(6),
            ..ModeArgs::default()
        };
        assert_eq!(Mode::resolve(&args, &settings()).unwrap().streams, 6);
    }

    #[test]
    fn an_option_of_another_mode_is_refused() {
        let args = ModeArgs {
            mode: Some(ModeName::Aimd),
            threads: Some(4),
            ..ModeArgs::default()
        };
        let error = Mode::resolve(&args, &settings()).unwrap_err();
        assert!(
            error
                .message
                .contains("--threads belongs to --mode parallel"),
            "{error}"
        );
        let args = ModeArgs {
            window: Some(8),
            min_window: Some(64),
            ..ModeArgs::default()
        };
        assert!(
            Mode::resolve(&args, &settings())
                .unwrap_err()
                .message
                .contains("must rise")
        );
        let args = ModeArgs {
            threads: Some(33),
            ..ModeArgs::default()
        };
        assert!(Mode::resolve(&args, &settings()).is_err());
    }
}
