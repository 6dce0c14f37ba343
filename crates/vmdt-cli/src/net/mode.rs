//! Transfer modes: names for settings of the transport underneath.

use std::str::FromStr;
use std::sync::Arc;

use clap::ValueEnum;
use vmdt_node::{LossDetection, RateLimit, SendOptions, TransportConfig};
use vmdt_rdt::congestion::NewRenoConfig;

use crate::cli::ModeArgs;
use crate::failure::{Failure, Outcome};
use crate::settings::Settings;
use crate::text::parse_octets;

/// Octets of a full datagram: what the transport counts its AIMD window in.
const DATAGRAM: u64 = 1472;
/// Streams at once, at most, when nothing is said.
const STREAMS: usize = 16;
/// The largest bucket when only a rate is given; it holds a quarter of a second.
const LARGEST_BUCKET: u64 = 1 << 20;
/// The smallest bucket of the transport.
const SMALLEST_BUCKET: u64 = 2048;

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
    detection: LossDetection,
    /// Of the node, for all that it sends.
    limit: Option<RateLimit>,
    priority: Priority,
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
        let no_timeout = args.no_timeout || !settings.is_on("aimd_timeout");
        let no_dupack = args.no_dupack || !settings.is_on("aimd_dupack");
        let detection = match (no_timeout, no_dupack) {
            (false, false) => LossDetection::Both,
            (true, false) => LossDetection::Packets,
            (false, true) => LossDetection::Timeout,
            (true, true) => {
                return Err(Failure::usage(
                    "without timeout and without duplicate acknowledgements no loss would be seen",
                ));
            }
        };
        let limit = match name {
            ModeName::TokenBucket => Some(limit(args, settings)?),
            _ => None,
        };
        let priority = match (name, args.priority) {
            (ModeName::Qos, Some(priority)) => priority,
            (ModeName::Qos, None) => settings.text("priority").parse().map_err(Failure::usage)?,
            _ => Priority::Normal,
        };
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
            detection,
            limit,
            priority,
        };
        mode.transport()?;
        Ok(mode)
    }

    /// The transport's settings for it; `None` where its own are right.
    pub(crate) fn transport(&self) -> Outcome<Option<TransportConfig>> {
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
        config
            .set_congestion(Arc::new(windows))
            .set_loss_detection(self.detection);
        Ok(Some(config))
    }

    /// The limit of all that the node sends.
    pub(crate) fn limit(&self) -> Option<RateLimit> {
        self.limit
    }

    /// How each transfer is sent.
    pub(crate) fn options(&self) -> SendOptions {
        SendOptions::new().priority(match self.priority {
            Priority::Normal => vmdt_node::Priority::Normal,
            Priority::High => vmdt_node::Priority::High,
            Priority::Highest => vmdt_node::Priority::Highest,
        })
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

/// The token bucket that flags and settings come to. What is not said follows from the rest.
fn limit(args: &ModeArgs, settings: &Settings) -> Outcome<RateLimit> {
    let set = |name| {
        let text = settings.text(name);
        (!text.is_empty()).then(|| parse_octets(text))
    };
    let of = |flag: Option<u64>, name| match flag {
        Some(octets) => Ok(Some(octets)),
        None => set(name).transpose().map_err(Failure::usage),
    };
    let Some(rate) = of(args.rate, "rate")? else {
        return Err(Failure::usage("--mode token-bucket needs a rate").hint(
            "--rate 2M is two MiB per second; VMDT_RATE or `rate` in config.toml say it once",
        ));
    };
    let usual = (rate / 4).clamp(SMALLEST_BUCKET, LARGEST_BUCKET);
    let bucket = of(args.bucket, "bucket_size")?.unwrap_or(usual);
    RateLimit::new(bucket, rate).map_err(|e| Failure::usage(format!("the rate limit: {e}")))
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
    fn a_rate_makes_a_token_bucket_and_a_bucket_alone_does_not() {
        let args = ModeArgs {
            rate: Some(2_000_000),
            ..ModeArgs::default()
        };
        let mode = Mode::resolve(&args, &settings()).unwrap();
        let limit = mode.limit().unwrap();
        assert_eq!(
            (mode.name, limit.octets_per_second(), limit.bucket_octets()),
            (ModeName::TokenBucket, 2_000_000, 500_000)
        );
        let args = ModeArgs {
            bucket: Some(64 << 10),
            ..ModeArgs::default()
        };
        assert!(Mode::resolve(&args, &settings()).is_err());
        let mut set = settings();
        set.flag("rate", Some("10k")).unwrap();
        let limit = Mode::resolve(&args, &set).unwrap().limit().unwrap();
        assert_eq!(
            (limit.octets_per_second(), limit.bucket_octets()),
            (10 << 10, 64 << 10)
        );
        let args = ModeArgs {
            rate: Some(10),
            ..ModeArgs::default()
        };
        assert!(Mode::resolve(&args, &settings()).is_err(), "too slow");
    }

    #[test]
    fn priorities_and_detections_become_settings_of_the_transport() {
        let args = ModeArgs {
            priority: Some(Priority::Highest),
            ..ModeArgs::default()
        };
        let mode = Mode::resolve(&args, &settings()).unwrap();
        let highest = SendOptions::new().priority(vmdt_node::Priority::Highest);
        assert_eq!((mode.name, mode.options()), (ModeName::Qos, highest));
        for (no_timeout, no_dupack, found) in [
            (true, false, LossDetection::Packets),
            (false, true, LossDetection::Timeout),
        ] {
            let args = ModeArgs {
                no_timeout,
                no_dupack,
                ..ModeArgs::default()
            };
            let mode = Mode::resolve(&args, &settings()).unwrap();
            assert_eq!((mode.name, mode.detection), (ModeName::Aimd, found));
        }
        let args = ModeArgs {
            no_timeout: true,
            no_dupack: true,
            ..ModeArgs::default()
        };
        assert!(Mode::resolve(&args, &settings()).is_err());
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
