//! Peers run as processes in a host's namespace and talk with the lab in lines.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::clock;
use crate::host::Host;

/// Settings of a peer process, as `key=value` words.
pub type Args = BTreeMap<String, String>;

/// The real-time priority of peers while they are measured: below the emulator's, above whatever
/// else the machine does. They are set up without it, so that setting up one contender disturbs
/// the measurement of another as little as other work does.
pub(crate) const PRIORITY: u8 = 10;

static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// Names the lab's program for peers, where it is not the running one: in tests. The first call
/// counts.
pub fn set_program(program: &Path) {
    let _ = PROGRAM.set(program.to_owned());
}

/// A running peer. It is killed when this is dropped, or when the lab ends in any way.
#[derive(Debug)]
pub struct Peer {
    name: String,
    role: String,
    child: Child,
    stdin: ChildStdin,
    lines: mpsc::Receiver<String>,
}

impl Peer {
    /// Starts this program in a namespace as `peer name role key=value ..`.
    ///
    /// # Errors
    /// When the process can't be started.
    pub fn start(host: &Host, name: &str, role: &str, args: &Args) -> Result<Peer> {
        let program = match PROGRAM.get() {
            Some(program) => program.clone(),
            None => std::env::current_exe().context("this program's own path")?,
        };
        let mut command = Command::new(program);
        command
            .args(["peer", name, role])
            .args(args.iter().map(|(k, v)| format!("{k}={v}")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        // the child is to end with the thread that starts it, which is the host's
        let mut child = host
            .run(move || command.spawn())?
            .with_context(|| format!("starting {name} on host {}", host.name()))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("a peer without pipes");
        };
        let (forward, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let Ok(line) = line else { return };
                if forward.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Peer {
            name: format!("{name} {role} on {}", host.name()),
            role: role.to_owned(),
            child,
            stdin,
            lines,
        })
    }

    /// Tells the peer to do something.
    ///
    /// # Errors
    /// When it has ended.
    pub fn say(&mut self, line: &str) -> Result<()> {
        writeln!(self.stdin, "{line}")
            .and_then(|()| self.stdin.flush())
            .with_context(|| format!("{} has ended", self.name))
    }

    /// The next line that begins with `word`, without it; other lines are skipped.
    ///
    /// # Errors
    /// When none comes in time, when the peer reports an error, or ends.
    pub fn expect(&self, word: &str, within: Duration) -> Result<Vec<String>> {
        let deadline = clock::now() + within;
        loop {
            let mut words = self
                .line(deadline)
                .with_context(|| format!("waiting for {word:?}"))?
                .into_iter();
            if words.next().as_deref() == Some(word) {
                return Ok(words.collect());
            }
        }
    }

    /// The next line, as words.
    ///
    /// # Errors
    /// When none comes by `deadline`, when the peer reports an error, or ends.
    pub fn line(&self, deadline: Instant) -> Result<Vec<String>> {
        self.next(deadline)?
            .ok_or_else(|| anyhow!("{} did not answer in time", self.name))
    }

    /// The next line, as words; `None` when none came by `deadline`.
    ///
    /// # Errors
    /// When the peer reports an error, or ends.
    pub fn next(&self, deadline: Instant) -> Result<Option<Vec<String>>> {
        let left = deadline.saturating_duration_since(clock::now());
        match self.lines.recv_timeout(left) {
            Ok(line) => match line.strip_prefix("error ") {
                Some(error) => bail!("{}: {error}", self.name),
                None => Ok(Some(line.split_whitespace().map(str::to_owned).collect())),
            },
            Err(mpsc::RecvTimeoutError::Timeout) => Ok(None),
            Err(mpsc::RecvTimeoutError::Disconnected) => bail!("{} ended", self.name),
        }
    }

    /// Gives the peer its real-time priority.
    ///
    /// # Errors
    /// When it has ended.
    pub fn hurry(&mut self) -> Result<()> {
        self.say("hurry")?;
        self.expect("hurries", Duration::from_secs(30))?;
        Ok(())
    }

    /// How long its threads could have run and had no processor so far.
    #[must_use]
    pub fn waited(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id()));
        let waited = |task: std::fs::DirEntry| -> Option<u64> {
            let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split_whitespace().nth(1)?.parse().ok()
        };
        let all = tasks.into_iter().flatten().flatten().filter_map(waited);
        Duration::from_nanos(all.sum())
    }

    /// Whether it has the role of a receiver.
    #[must_use]
    pub fn is_server(&self) -> bool {
        self.role == "server"
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A number from a peer's line.
///
/// # Errors
/// When there is none at this place.
pub fn number(words: &[String], at: usize) -> Result<u64> {
    words
        .get(at)
        .and_then(|word| word.parse().ok())
        .ok_or_else(|| anyhow!("no number at {at} in {words:?}"))
}
