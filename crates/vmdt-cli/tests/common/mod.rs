//! Runs the real program.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    dead_code,
    unreachable_pub
)]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

/// How long anything may take on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(90);

/// A place of its own: folders, state, a port for discovery.
pub struct World {
    pub dir: TempDir,
    port: u16,
}

/// A program that runs; killed when dropped.
pub struct Running {
    child: Child,
    lines: Receiver<Value>,
    errors: Receiver<String>,
    pub seen: Vec<Value>,
}

impl World {
    pub fn new() -> World {
        let port = UdpSocket::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        World {
            dir: TempDir::new().unwrap(),
            port,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A file with content that repeats nowhere within a chunk.
    pub fn file(&self, name: &str, len: usize) -> PathBuf {
        let path = self.path(name);
        let mut octets = vec![0; len];
        blake3::Hasher::new()
            .update(name.as_bytes())
            .finalize_xof()
            .fill(&mut octets);
        fs::write(&path, octets).unwrap();
        path
    }

    pub fn command(&self, who: &str, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmdt"));
        command
            .args(words)
            .current_dir(self.dir.path())
            .env_clear()
            .env("HOME", self.dir.path())
            .env("VMDT_STATE_DIR", self.path(&format!("state-{who}")))
            .env("VMDT_BIND", "127.0.0.1")
            .env("USER", who)
            .env("VMDT_DISCOVERY_PORT", self.port.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Starts it with `--json` and reads its lines.
    pub fn start(&self, who: &str, words: &[&str]) -> Running {
        let mut command = self.command(who, words);
        command.arg("--json");
        Running::spawn(command)
    }

    /// Runs it to its end.
    pub fn run(&self, who: &str, words: &[&str]) -> (i32, String, String) {
        let output = self.command(who, words).output().unwrap();
        (
            output.status.code().unwrap_or(-1),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    }

    /// Starts a send and gives its code.
    pub fn send(&self, words: &[&str]) -> (Running, String) {
        let mut all = vec!["send"];
        all.extend(words);
        let mut running = self.start("sender", &all);
        let code = running.wait_for("code")["code"]
            .as_str()
            .unwrap()
            .to_owned();
        (running, code)
    }
}

impl Running {
    pub fn spawn(mut command: Command) -> Running {
        let mut child = command.spawn().unwrap();
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (to, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines() {
                let Ok(line) = line else { return };
                let value =
                    serde_json::from_str(&line).unwrap_or_else(|_| panic!("not JSON: {line}"));
                if to.send(value).is_err() {
                    return;
                }
            }
        });
        let (to, errors) = channel();
        std::thread::spawn(move || {
            let mut text = String::new();
            let _ = BufReader::new(err).read_to_string(&mut text);
            let _ = to.send(text);
        });
        Running {
            child,
            lines,
            errors,
            seen: Vec::new(),
        }
    }

    /// The next line of this kind.
    pub fn wait_for(&mut self, event: &str) -> Value {
        loop {
            let line = self
                .lines
                .recv_timeout(PATIENCE)
                .unwrap_or_else(|_| panic!("no {event:?} came; before it: {:#?}", self.seen));
            self.seen.push(line.clone());
            if line["event"] == event {
                return line;
            }
        }
    }

    /// The end: its code and the remaining lines.
    pub fn end(&mut self) -> i32 {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    let _ = self.child.kill();
                    panic!("it does not end: {:#?}", self.seen);
                }
            }
        }
        let status: ExitStatus = self.child.wait().unwrap();
        let errors = self.errors.recv_timeout(PATIENCE).unwrap_or_default();
        assert!(!errors.contains("panicked"), "{errors}");
        status.code().unwrap_or(-1)
    }

    pub fn saw(&self, event: &str) -> Option<&Value> {
        self.seen.iter().rev().find(|line| line["event"] == event)
    }

    /// SIGKILL: nothing is tidied up.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    #[cfg(unix)]
    pub fn interrupt(&self) {
        let ok = Command::new("kill")
            .args(["-INT", &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(ok.success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn same(a: &Path, b: &Path) -> bool {
    fs::read(a).unwrap() == fs::read(b).unwrap()
}
