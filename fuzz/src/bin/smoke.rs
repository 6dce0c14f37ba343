//! Runs the targets with their seeds and with mutations of them, on any toolchain. It knows
//! nothing of coverage, so it finds less than cargo-fuzz does; it runs where that cannot.

use std::collections::VecDeque;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::process::{ExitCode, exit};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use vmdt_fuzz::{TARGETS, Target};
use vmdt_testkit::SimRng;

const USAGE: &str = "\
usage: smoke [--seconds S | --iterations N] [--seed X] [TARGET...]

Runs every target (or those named) for S seconds each, 10 by default, or for N inputs. The seed is
1 by default: the same N inputs each time. An input that breaks a target is written to
artifacts/TARGET/.";

/// An input that takes longer than this hangs.
const HANG: Duration = Duration::from_secs(30);
/// Octets of the longest input made.
const MAX_LEN: usize = 4096;
/// Mutants kept to be mutated further.
const MAX_POOL: usize = 500;

struct Options {
    limit: Limit,
    seed: u64,
    targets: Vec<Target>,
}

#[derive(Clone, Copy)]
enum Limit {
    Time(Duration),
    Inputs(u64),
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        limit: Limit::Time(Duration::from_secs(10)),
        seed: 1,
        targets: Vec::new(),
    };
    let mut args = env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || {
            let value = args.next().ok_or(format!("{arg} needs a number"))?;
            value
                .parse::<u64>()
                .map_err(|e| format!("{arg} {value}: {e}"))
        };
        match arg.as_str() {
            "--seconds" => options.limit = Limit::Time(Duration::from_secs(number()?)),
            "--iterations" => options.limit = Limit::Inputs(number()?),
            "--seed" => options.seed = number()?,
            "--help" | "-h" => {
                println!("{USAGE}");
                exit(0);
            }
            name => match TARGETS.iter().find(|target| target.name == name) {
                Some(target) => options.targets.push(*target),
                None => return Err(format!("there is no target or option {name}")),
            },
        }
    }
    if options.targets.is_empty() {
        options.targets = TARGETS.to_vec();
    }
    Ok(options)
}

/// What is being run, for the watchdog.
#[derive(Default)]
struct Current {
    target: &'static str,
    input: Vec<u8>,
    since: Option<Instant>,
}

type Shared = Arc<Mutex<Current>>;

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let shared = Shared::default();
    let watched = Arc::clone(&shared);
    thread::spawn(move || watch(&watched));
    let mut failed = 0;
    for target in options.targets {
        let rng = SimRng::from_seed(options.seed).fork(target.name);
        if !run(&target, options.limit, rng, &shared) {
            failed += 1;
        }
    }
    if failed > 0 {
        eprintln!("{failed} targets failed");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Runs one target; false when an input broke it.
fn run(target: &Target, limit: Limit, mut rng: SimRng, shared: &Shared) -> bool {
    let start = now();
    let seeds = (target.seeds)();
    let mut first: VecDeque<Vec<u8>> = seeds.iter().cloned().collect();
    let mut pool = seeds.clone();
    let mut inputs = 0;
    loop {
        let done = match limit {
            Limit::Time(time) => start.elapsed() >= time,
            Limit::Inputs(count) => inputs >= count,
        };
        if done && first.is_empty() {
            break;
        }
        let input = match first.pop_front() {
            Some(seed) => seed,
            None => mutant(&pool, &mut rng),
        };
        set_current(shared, target.name, &input, Some(now()));
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| (target.run)(&input)));
        set_current(shared, target.name, &[], None);
        inputs += 1;
        if outcome.is_err() {
            report(target.name, "crash", &input);
            return false;
        }
        // Without coverage nothing tells which mutants are worth keeping: a few by chance.
        if rng.chance(0.02) {
            if pool.len() < MAX_POOL {
                pool.push(input);
            } else {
                let at = seeds.len() + rng.below((MAX_POOL - seeds.len()) as u64) as usize;
                pool[at] = input;
            }
        }
    }
    println!(
        "{}: {inputs} inputs in {:.1} s",
        target.name,
        start.elapsed().as_secs_f64()
    );
    true
}

/// An input from the pool with one to six changes, now and then one of pure noise.
fn mutant(pool: &[Vec<u8>], rng: &mut SimRng) -> Vec<u8> {
    if rng.chance(0.02) {
        let len = rng.below(300) as usize;
        return rng.bytes(len);
    }
    let mut input = rng.pick(pool).cloned().unwrap_or_default();
    for _ in 0..rng.range(1..=6) {
        mutate(&mut input, pool, rng);
    }
    input.truncate(MAX_LEN);
    input
}

fn mutate(input: &mut Vec<u8>, pool: &[Vec<u8>], rng: &mut SimRng) {
    const TELLING: [u8; 24] = *b"\x00\x01\x02\x7f\x80\xff\n\r\t |/~%:=,.-_09Az";
    let at = rng.below(input.len() as u64 + 1) as usize;
    let end = at + rng.below((input.len() - at) as u64 + 1) as usize;
    match rng.below(9) {
        0 if at < input.len() => input[at] ^= 1 << rng.below(8),
        1 if at < input.len() => input[at] = rng.next_u64() as u8,
        2 if at < input.len() => input[at] = *rng.pick(&TELLING).unwrap_or(&0),
        3 if at < input.len() => input[at] = input[at].wrapping_add(rng.range(0..=8) as u8),
        4 => input.insert(at, *rng.pick(&TELLING).unwrap_or(&0)),
        5 => drop(input.drain(at..end.min(at + 16))),
        6 => input.extend_from_within(at..end),
        7 => input.truncate(end),
        8 => {
            // The rest of another input behind the beginning of this one.
            if let Some(other) = rng.pick(pool) {
                let from = rng.below(other.len() as u64 + 1) as usize;
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
        }
        _ => {}
    }
}

#[allow(clippy::disallowed_methods, reason = "how long to run is real time")]
fn now() -> Instant {
    Instant::now()
}

fn set_current(shared: &Shared, target: &'static str, input: &[u8], since: Option<Instant>) {
    let mut current = shared.lock().unwrap_or_else(PoisonError::into_inner);
    current.target = target;
    current.input.clear();
    current.input.extend_from_slice(input);
    current.since = since;
}

/// Ends the program when an input does not come to an end.
fn watch(shared: &Shared) {
    loop {
        thread::sleep(Duration::from_secs(1));
        let current = shared.lock().unwrap_or_else(PoisonError::into_inner);
        if current.since.is_some_and(|since| since.elapsed() > HANG) {
            report(current.target, "hang", &current.input);
            exit(1);
        }
    }
}

/// Keeps an input that broke a target, and says how to run it again.
fn report(target: &str, what: &str, input: &[u8]) {
    // FNV-1a: a name that is the same for the same input.
    let hash = input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, octet| {
        (hash ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01b3)
    });
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("artifacts")
        .join(target);
    let path = folder.join(format!("{what}-{hash:016x}"));
    let hex: String = input.iter().map(|octet| format!("{octet:02x}")).collect();
    eprintln!("{target}: {what}, input {hex}");
    match fs::create_dir_all(&folder).and_then(|()| fs::write(&path, input)) {
        Ok(()) => eprintln!(
            "run it again: cargo run --manifest-path fuzz/Cargo.toml --bin {target} -- {}",
            path.display()
        ),
        Err(error) => eprintln!("{}: {error}", path.display()),
    }
}
