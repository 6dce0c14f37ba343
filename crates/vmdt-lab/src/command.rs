//! Words of the command line.

use std::collections::BTreeMap;
use std::io::stdout;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use vmdt_lab::figures::{self, Effort, FIGURES, Figure, PATHS};
use vmdt_lab::run::{CONTENDERS, Common, Plan, Workload, contender, ideal_burst};
use vmdt_lab::world::{PathSpec, World};
use vmdt_lab::{check, measure, peers, report};

const USAGE: &str = "\
vmdt-lab measures VMDT and others over emulated links on this machine. Needs root (for network
namespaces and TUN devices), iproute2 and /dev/net/tun; leaves nothing behind.

  check                          how true the emulator is to its settings
  report [--seeds N] [--jobs N]  all figures (30 seeds unless said), REPORT.md, plots, raw data
         [--resume]              only what is missing: after an interruption
  quick                          a small report in about two minutes, into target/lab-quick
  figure NAME.. [--seeds N]      figures anew, and the report with them; --jobs, --resume too
         [--only CONTENDER]      of one contender; what is known of the others stays
  render                         the report from the raw data that is there
  one CONTENDER [settings]       one contender, measurement by measurement
  list                           figures and contenders

settings of `one`: --mbit 10 --rtt 50 --loss 6 --burst-loss 0 --paths 3 --seeds 3 --cold
                   --messages 59 --size 1392 | --bulk OCTETS | --requests N
                   --capture FILE.pcap (everything that enters the emulated links)
of all:            --to FOLDER (docs/lab)
--jobs N measures N settings at once (8 unless said); loopback is measured alone.";

pub(crate) fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().map(String::as_str) == Some("peer") {
        // the lab shows what a peer says
        return match peers::main(words.get(1..).unwrap_or_default()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    match command(&words) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("vmdt-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What stands behind the command's name.
struct Options {
    named: BTreeMap<String, String>,
    plain: Vec<String>,
}

impl Options {
    fn parse(words: &[String]) -> Result<Options> {
        let mut options = Options {
            named: BTreeMap::new(),
            plain: Vec::new(),
        };
        let mut words = words.iter().skip(1);
        while let Some(word) = words.next() {
            match word.strip_prefix("--") {
                Some(flag @ ("cold" | "resume")) => {
                    options.named.insert(flag.to_owned(), String::new());
                }
                Some(name) => {
                    let known = [
                        "seeds",
                        "mbit",
                        "rtt",
                        "loss",
                        "burst-loss",
                        "paths",
                        "messages",
                        "size",
                        "bulk",
                        "requests",
                        "capture",
                        "to",
                        "only",
                        "jobs",
                    ];
                    ensure!(
                        known.contains(&name),
                        "no such setting: --{name}\n\n{USAGE}"
                    );
                    let value = words
                        .next()
                        .with_context(|| format!("--{name} needs a value"))?;
                    options.named.insert(name.to_owned(), value.clone());
                }
                None => options.plain.push(word.clone()),
            }
        }
        Ok(options)
    }

    fn number<T: std::str::FromStr>(&self, name: &str, default: T) -> Result<T> {
        match self.named.get(name) {
            None => Ok(default),
            Some(text) => text
                .parse()
                .map_err(|_| anyhow!("--{name} {text}: not a number")),
        }
    }

    fn folder(&self, default: &str) -> PathBuf {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
        match self.named.get("to") {
            Some(folder) => folder.into(),
            None => PathBuf::from(root).join(default),
        }
    }
}

fn command(words: &[String]) -> Result<bool> {
    let options = Options::parse(words)?;
    match words.first().map(String::as_str) {
        Some("check") => {
            needs_root()?;
            println!("{}", check::head());
            let lines = check::run(check::Effort::FULL)?;
            for line in &lines {
                println!("{line}");
            }
            Ok(lines.iter().all(check::Measured::is_well))
        }
        Some("report") => {
            with_peers(words)?;
            let effort = effort(&options, 30, false)?;
            all(&all_figures(), effort, &options.folder("docs/lab"))
        }
        Some("quick") => {
            with_peers(words)?;
            let effort = effort(&options, 2, true)?;
            all(&all_figures(), effort, &options.folder("target/lab-quick"))
        }
        Some("figure") => {
            with_peers(words)?;
            let effort = effort(&options, 30, false)?;
            ensure!(!options.plain.is_empty(), "which? `list` names them");
            let figures = options
                .plain
                .iter()
                .map(|name| {
                    figures::figure(name)
                        .with_context(|| format!("no figure {name}; `list` names them"))
                })
                .collect::<Result<Vec<_>>>()?;
            all(&figures, effort, &options.folder("docs/lab"))
        }
        Some("render") => {
            let folder = options.folder("docs/lab");
            report::render(&folder)?;
            println!("{}", folder.join("REPORT.md").display());
            Ok(true)
        }
        Some("one") => one(&options),
        Some("list") => {
            for figure in FIGURES {
                println!("{:<12} {}", figure.id, figure.title);
            }
            println!();
            for contender in CONTENDERS {
                println!("{:<18} {}", contender.label, contender.about);
            }
            Ok(true)
        }
        _ => {
            println!("{USAGE}");
            Ok(matches!(
                words.first().map(String::as_str),
                Some("help" | "--help")
            ))
        }
    }
}

fn effort(options: &Options, seeds: u64, quick: bool) -> Result<Effort> {
    let only = match options.named.get("only") {
        Some(name) => Some(
            contender(name).with_context(|| format!("no contender {name:?}; `list` names them"))?,
        ),
        None => None,
    };
    let jobs = options.number("jobs", measure::JOBS)?;
    ensure!(
        (1..=measure::MAX_JOBS).contains(&jobs),
        "--jobs {jobs}: 1 to {}",
        measure::MAX_JOBS
    );
    Ok(Effort {
        seeds: options.number("seeds", seeds)?,
        quick,
        only,
        jobs,
        resume: options.named.contains_key("resume"),
    })
}

fn all_figures() -> Vec<&'static Figure> {
    FIGURES.iter().collect()
}

fn all(figures: &[&'static Figure], effort: Effort, folder: &std::path::Path) -> Result<bool> {
    let tally = measure::measure(figures, effort, folder, &mut stdout())?;
    println!(
        "{} measured, {} kept, {} left out",
        tally.measured, tally.kept, tally.left_out
    );
    report::render(folder)?;
    println!("{}", folder.join("REPORT.md").display());
    Ok(true)
}

fn needs_root() -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "needs root, for network namespaces and TUN devices: \
         sudo -E env PATH=\"$PATH\" cargo run -p vmdt-lab --release -- .."
    );
    // what else the machine does should disturb the peers less; threads and processes inherit it
    let _ = Command::new("renice")
        .args(["-n", "-10", "-p", &std::process::id().to_string()])
        .output();
    Ok(())
}

/// The report needs QUIC, TLS and plots, which the default build does without. Built without
/// them, this command has itself built with them and goes on there.
fn with_peers(words: &[String]) -> Result<()> {
    needs_root()?;
    if cfg!(feature = "peers") {
        return Ok(());
    }
    let Some(cargo) = std::env::var_os("CARGO") else {
        bail!(
            "built without the feature `peers`: cargo build -p vmdt-lab --release --features peers"
        );
    };
    eprintln!("vmdt-lab: building again with the feature `peers` (QUIC, TLS, plots)");
    let status = Command::new(cargo)
        .args(["run", "--release", "--features", "peers", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .arg("--")
        .args(words)
        .status()
        .context("running cargo")?;
    std::process::exit(status.code().unwrap_or(1));
}

fn one(options: &Options) -> Result<bool> {
    needs_root()?;
    let name = options.plain.join(" ");
    let contender =
        contender(&name).with_context(|| format!("no contender {name:?}; `list` names them"))?;
    let count: usize = options.number("paths", PATHS)?;
    let mut spec = PathSpec::new(
        options.number("mbit", 10.0)?,
        options.number("rtt", 50)?,
        options.number("loss", 6.0)? / 100.0,
    );
    let in_bursts: f64 = options.number("burst-loss", 0.0)?;
    if in_bursts > 0.0 {
        spec.burst = Some((in_bursts / 100.0, 8.0));
    }
    let burst = (
        options.number("messages", 59)?,
        options.number("size", 1392)?,
    );
    let workload = if options.named.contains_key("bulk") {
        Workload::Bulk {
            octets: options.number("bulk", 0)?,
            limit: Duration::from_secs(60),
        }
    } else if options.named.contains_key("requests") {
        Workload::Requests {
            count: options.number("requests", 1)?,
        }
    } else {
        Workload::Burst {
            count: burst.0,
            size: burst.1,
        }
    };
    let world = World::new(count, if count > 1 { contender.relays } else { 0 })?;
    let common = Common::new()?;
    if let Some(file) = options.named.get("capture") {
        world.emulator.capture(Some(file.as_ref()))?;
    }
    let paths = vec![spec; count];
    if matches!(workload, Workload::Burst { .. }) {
        let ideal = ideal_burst(&paths, burst, contender.policy.unwrap_or((3, 6)));
        println!("ideal {:.1} ms", ideal.as_secs_f64() * 1e3);
    }
    for seed in 1..=options.number("seeds", 3)? {
        let plan = Plan {
            contender,
            paths: paths.clone(),
            seed,
            cold: options.named.contains_key("cold"),
            workload,
            outage: None,
            competing: false,
        };
        let outcome = common.run(&world, &plan)?;
        let took = outcome
            .took
            .map(|t| format!("{:.1} ms", t.as_secs_f64() * 1e3));
        println!(
            "{} seed {seed}: {}, {} octets sent{}",
            contender.label,
            took.as_deref().unwrap_or("not done"),
            outcome.sent,
            match workload {
                Workload::Bulk { .. } => format!(", {:.2} Mbit/s", outcome.goodput() / 1e6),
                _ => String::new(),
            }
        );
    }
    world.emulator.capture(None)?;
    Ok(true)
}
