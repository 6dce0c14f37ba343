//! Hosts: network namespaces that live as long as a thread of this process.
//!
//! The namespace is made with unshare(2) and has no name in the file system, so nothing is left
//! when the process ends, however it ends. What is spawned from the thread is in the namespace.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result, anyhow, bail};
use nix::sched::{CloneFlags, unshare};

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace.
#[derive(Debug, Clone)]
pub struct Host {
    name: String,
    jobs: mpsc::Sender<Job>,
}

impl Host {
    /// Makes a namespace, with its loopback device up.
    ///
    /// # Errors
    /// Without the right to make one (CAP_SYS_ADMIN): run as root.
    pub fn new(name: &str) -> Result<Host> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (made, outcome) = mpsc::channel();
        thread::Builder::new()
            .name(format!("host-{name}"))
            .spawn(move || {
                let result = unshare(CloneFlags::CLONE_NEWNET);
                let failed = result.is_err();
                let _ = made.send(result);
                if !failed {
                    while let Ok(job) = inbox.recv() {
                        job();
                    }
                }
            })
            .context("no thread for a host")?;
        outcome
            .recv()
            .map_err(|_| anyhow!("the host's thread ended"))?
            .context("no network namespace (the lab must run as root)")?;
        let host = Host {
            name: name.to_owned(),
            jobs,
        };
        host.ip("link set lo up")?;
        Ok(host)
    }

    /// The host's name, for messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `job` inside the namespace: its sockets, devices and processes belong to it.
    ///
    /// # Errors
    /// When the host's thread has ended.
    pub fn run<R: Send + 'static>(&self, job: impl FnOnce() -> R + Send + 'static) -> Result<R> {
        let (done, result) = mpsc::channel();
        self.jobs
            .send(Box::new(move || {
                let _ = done.send(job());
            }))
            .map_err(|_| anyhow!("host {} is gone", self.name))?;
        result
            .recv()
            .map_err(|_| anyhow!("a job on host {} panicked", self.name))
    }

    /// Runs ip(8) with one or more lines of arguments.
    ///
    /// # Errors
    /// What it printed.
    pub fn ip(&self, lines: &str) -> Result<()> {
        let text = lines.to_owned();
        let output = self.run(move || {
            let mut child = Command::new("ip")
                .args(["-batch", "-"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .context("ip(8) is needed (package iproute2)")?;
            if let Some(mut stdin) = child.stdin.take() {
                stdin.write_all(text.as_bytes())?;
                stdin.write_all(b"\n")?;
            }
            anyhow::Ok(child.wait_with_output()?)
        })??;
        if !output.status.success() {
            bail!(
                "ip on host {} failed: {}\n{lines}",
                self.name,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(())
    }

    /// Sets a sysctl of the namespace, dots or slashes in `key`. False where the kernel has no
    /// such key.
    ///
    /// # Errors
    /// When the host is gone.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<bool> {
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        let value = value.to_owned();
        self.run(move || std::fs::write(path, value).is_ok())
    }
}
