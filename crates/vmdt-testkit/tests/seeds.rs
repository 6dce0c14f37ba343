#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

//! `run_seeds` as a developer meets it: this test binary runs itself with the
//! variables set and reads what it prints.

use std::process::{Command, Output};

use vmdt_testkit::run_seeds;

/// Marks the processes in which the failing worlds are meant to run, so that
/// `--include-ignored` does not fail on them.
const CHILD: &str = "VMDT_TESTKIT_CHILD";

fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// Runs one ignored test of this binary in a process of its own.
fn run(test: &str, variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(CHILD, "1")
        .env_remove("VMDT_SEED")
        .env_remove("VMDT_WORLDS")
        .envs(variables.iter().copied());
    command.output().unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn worlds(output: &Output) -> Vec<String> {
    let errors = errors(output);
    errors
        .lines()
        .filter_map(|line| line.strip_prefix("world "))
        .map(str::to_owned)
        .collect()
}

#[test]
#[ignore = "run by the tests below"]
#[allow(clippy::print_stderr)]
fn panics_at_seed_three() {
    if !is_child() {
        return;
    }
    run_seeds(0..6, |seed| {
        eprintln!("world {seed}");
        assert!(seed != 3, "three is bad");
    });
}

#[test]
#[ignore = "run by the tests below"]
fn returns_an_error_at_seed_three() {
    if !is_child() {
        return;
    }
    run_seeds(0..6, |seed| {
        if seed == 3 {
            Err("three is bad")
        } else {
            Ok(())
        }
    });
}

#[test]
fn a_panic_names_its_seed_and_fails_the_test() {
    let output = run("panics_at_seed_three", &[]);
    assert!(!output.status.success());
    assert_eq!(worlds(&output), ["0", "1", "2", "3"]);
    let line = "seed 3 failed: three is bad; replay with VMDT_SEED=3";
    assert!(errors(&output).contains(line), "{}", errors(&output));
}

#[test]
fn an_error_names_its_seed_and_fails_the_test() {
    let output = run("returns_an_error_at_seed_three", &[]);
    assert!(!output.status.success());
    let line = "seed 3 failed: \"three is bad\"; replay with VMDT_SEED=3";
    assert!(errors(&output).contains(line), "{}", errors(&output));
}

#[test]
fn vmdt_seed_runs_exactly_one_world() {
    let output = run("panics_at_seed_three", &[("VMDT_SEED", "3")]);
    assert!(!output.status.success());
    assert_eq!(worlds(&output), ["3"]);

    let output = run("panics_at_seed_three", &[("VMDT_SEED", "77")]);
    assert!(output.status.success());
    assert_eq!(worlds(&output), ["77"]);
}

#[test]
fn vmdt_worlds_sets_the_count() {
    let output = run("panics_at_seed_three", &[("VMDT_WORLDS", "2")]);
    assert!(output.status.success());
    assert_eq!(worlds(&output), ["0", "1"]);
}

#[test]
fn a_variable_that_is_no_number_fails_the_test() {
    let output = run("panics_at_seed_three", &[("VMDT_SEED", "three")]);
    assert!(!output.status.success());
    assert_eq!(worlds(&output), [""; 0]);
    assert!(errors(&output).contains("VMDT_SEED=\"three\" is not a 64-bit number"));
}
