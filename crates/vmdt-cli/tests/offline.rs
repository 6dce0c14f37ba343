//! Commands that need no network.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::fs;

use common::{World, same};

#[test]
fn shares_of_both_versions_rebuild_the_file_and_too_few_do_not() {
    let world = World::new();
    for (version, len) in [
        ("1", 100_000),
        ("2", 100_000),
        ("2", 0),
        ("2", (4 << 20) + 1),
    ] {
        let file = world.file("doc.pdf", len);
        let (exit, paths, text) = world.run(
            "a",
            &[
                "split",
                "doc.pdf",
                "-k",
                "3",
                "-n",
                "5",
                "--format",
                version,
                "--overwrite",
            ],
        );
        assert_eq!(exit, 0, "{text}");
        assert_eq!(paths.lines().collect::<Vec<_>>()[0], "doc_share1.bin");
        for set in [["1", "2", "3"], ["5", "1", "4"]] {
            let names = set.map(|index| format!("doc_share{index}.bin"));
            let (exit, _, text) = world.run(
                "a",
                &[
                    "combine",
                    &names[0],
                    &names[1],
                    &names[2],
                    "-o",
                    "copy",
                    "--overwrite",
                ],
            );
            assert_eq!(exit, 0, "{text}");
            assert!(
                same(&file, &world.path("copy")),
                "version {version}, {len} octets"
            );
        }
        let (exit, _, text) = world.run(
            "a",
            &[
                "combine",
                "doc_share1.bin",
                "doc_share2.bin",
                "-o",
                "none",
                "--overwrite",
            ],
        );
        assert_eq!(exit, 9, "{text}");
        assert!(!world.path("none").exists() && !world.path("none.vmdt.part").exists());
    }
}

#[test]
fn an_altered_share_is_named_and_the_others_do_without_it() {
    let world = World::new();
    let file = world.file("doc", 50_000);
    assert_eq!(world.run("a", &["split", "doc", "-k", "2", "-n", "4"]).0, 0);
    let mut octets = fs::read(world.path("doc_share2.bin")).unwrap();
    let last = octets.len() - 1;
    octets[last] ^= 1;
    fs::write(world.path("doc_share2.bin"), octets).unwrap();
    let all = ["doc_share1.bin", "doc_share2.bin", "doc_share3.bin"];
    let (exit, text, _) = world.run("a", &["verify", all[0], all[1], all[2]]);
    assert_eq!(exit, 9);
    assert!(
        text.contains("doc_share1.bin: good") && !text.contains("doc_share2.bin: good"),
        "{text}"
    );
    let (exit, _, text) = world.run("a", &["combine", all[0], all[1], all[2], "-o", "copy"]);
    assert_eq!(exit, 0, "{text}");
    assert!(text.contains("not used: doc_share2.bin"), "{text}");
    assert!(same(&file, &world.path("copy")));
    let (exit, _, text) = world.run("a", &["combine", all[0], all[1], "-o", "copy2"]);
    assert_eq!(exit, 9, "{text}");
}

#[test]
fn refreshed_shares_fit_each_other_and_not_the_old_ones() {
    let world = World::new();
    let file = world.file("doc", 5_000);
    assert_eq!(
        world
            .run(
                "a",
                &["split", "doc", "-k", "2", "-n", "3", "--format", "1"]
            )
            .0,
        0
    );
    let (exit, _, text) = world.run(
        "a",
        &[
            "refresh",
            "doc_share1.bin",
            "doc_share2.bin",
            "doc_share3.bin",
            "-o",
            "new",
        ],
    );
    assert_eq!(exit, 0, "{text}");
    let (exit, ..) = world.run(
        "a",
        &[
            "combine",
            "new/doc_share1.bin",
            "new/doc_share3.bin",
            "-o",
            "copy",
        ],
    );
    assert_eq!(exit, 0);
    assert!(same(&file, &world.path("copy")));
    world.run(
        "a",
        &[
            "combine",
            "doc_share1.bin",
            "new/doc_share3.bin",
            "-o",
            "mixed",
        ],
    );
    assert!(!world.path("mixed").exists() || !same(&file, &world.path("mixed")));
    let (exit, text, _) = world.run("a", &["inspect", "new/doc_share1.bin"]);
    assert!(
        exit == 0 && text.contains("version 1, share 1, 2 needed"),
        "{text}"
    );
}

#[test]
fn settings_show_their_source_and_errors_their_place() {
    let world = World::new();
    fs::write(
        world.path("c.toml"),
        "server = \"file:1\"\nstall_timeout = 9\n",
    )
    .unwrap();
    let mut command = world.command("a", &["config", "--config", "c.toml", "--json"]);
    let output = command.env("VMDT_SERVER", "env:2").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains(r#""name":"server","value":"env:2","source":"environment""#)
            || text
                .lines()
                .any(|l| l.contains("env:2") && l.contains("environment")),
        "{text}"
    );
    assert!(
        text.lines()
            .any(|line| line.contains("stall_timeout") && line.contains("\"file\""))
    );
    let (exit, text, _) = world.run("a", &["config", "--server", "flag:3", "server"]);
    assert_eq!((exit, text.trim()), (0, "flag:3"));
    fs::write(world.path("c.toml"), "sever = 1\n").unwrap();
    let (exit, _, text) = world.run("a", &["config", "--config", "c.toml"]);
    assert_eq!(exit, 2);
    assert!(text.contains("sever"), "{text}");
}

#[test]
fn completions_and_manual_pages_are_there_for_every_command() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (exit, text, _) = world.run("a", &["completions", shell]);
        assert!(exit == 0 && text.contains("combine"), "{shell}");
    }
    let (exit, text, _) = world.run("a", &["man"]);
    assert!(exit == 0 && text.contains(".TH vmdt"));
    assert_eq!(world.run("a", &["man", "--out", "man"]).0, 0);
    assert!(world.path("man/vmdt-send.1").exists());
    let (exit, ..) = world.run("a", &["no-such-command"]);
    assert_eq!(exit, 2);
    let (exit, text, _) = world.run("a", &["--help"]);
    assert!(exit == 0 && text.contains("Exit codes"));
}
