//! What the program says: to a person on stderr, to programs as JSON lines on stdout.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program talks to whoever started it"
)]

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use indicatif::MultiProgress;
use serde_json::{Value, json};

use crate::cli::Global;
use crate::failure::{Exit, Failure, Outcome};
use crate::text::{printable, printable_lines};

/// Where words go. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Out {
    json: bool,
    quiet: bool,
    yes: bool,
    /// Whether stderr is a terminal on which lines may change.
    terminal: bool,
    progress: bool,
    color: bool,
    /// Content goes to stdout, so JSON lines go to stderr.
    stdout_taken: bool,
    bars: MultiProgress,
}

impl Out {
    pub(crate) fn new(global: &Global) -> Out {
        let terminal = std::io::stderr().is_terminal();
        let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty())
            || std::env::var_os("TERM").is_some_and(|v| v == "dumb");
        Out {
            json: global.json,
            quiet: global.quiet,
            yes: global.yes,
            terminal: terminal && !global.json,
            progress: !(global.no_progress || global.quiet),
            color: terminal && !plain,
            stdout_taken: false,
            bars: MultiProgress::new(),
        }
    }

    /// From now on content goes to stdout.
    pub(crate) fn take_stdout(&mut self) {
        self.stdout_taken = true;
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Whether lines on stderr may change, and progress is wanted.
    pub(crate) fn draws(&self) -> bool {
        self.terminal && self.progress
    }

    /// Whether a person looks at stderr.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    pub(crate) fn wants_progress(&self) -> bool {
        self.progress
    }

    pub(crate) fn bars(&self) -> &MultiProgress {
        &self.bars
    }

    /// Words for a person; nothing with `--quiet` or `--json`. Must hold nothing that harms a
    /// terminal.
    pub(crate) fn say(&self, line: impl AsRef<str>) {
        if !self.quiet && !self.json {
            self.stderr(line.as_ref());
        }
    }

    /// Words that are shown also with `--quiet`.
    pub(crate) fn insist(&self, line: impl AsRef<str>) {
        if !self.json {
            self.stderr(line.as_ref());
        }
    }

    fn stderr(&self, line: &str) {
        self.bars.suspend(|| {
            // a person who has gone is no reason to stop
            let _ = writeln!(std::io::stderr().lock(), "{line}");
        });
    }

    /// A result: a line on stdout, nothing with `--json`.
    pub(crate) fn result(&self, line: impl AsRef<str>) -> Outcome<()> {
        if self.json || self.stdout_taken {
            return Ok(());
        }
        self.stdout(line.as_ref())
    }

    /// Text as it is, on stdout.
    pub(crate) fn raw(&self, text: &str) -> Outcome<()> {
        let mut out = std::io::stdout().lock();
        stdout_error(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
    }

    fn stdout(&self, line: &str) -> Outcome<()> {
        self.bars.suspend(|| {
            let mut out = std::io::stdout().lock();
            stdout_error(writeln!(out, "{line}").and_then(|()| out.flush()))
        })
    }

    /// A JSON line: `event` first, then the fields. Nothing without `--json`.
    pub(crate) fn event(&self, event: &str, fields: Value) {
        if !self.json {
            return;
        }
        let mut line = serde_json::Map::new();
        line.insert("event".into(), event.into());
        if let Value::Object(fields) = fields {
            line.extend(fields);
        }
        let line = Value::Object(line).to_string();
        if self.stdout_taken {
            let _ = writeln!(std::io::stderr().lock(), "{line}");
        } else {
            let _ = self.stdout(&line);
        }
    }

    /// A command's end that did not go well.
    pub(crate) fn failure(&self, failure: &Failure) {
        if self.json {
            self.event(
                "error",
                json!({
                    "code": failure.exit.word(),
                    "exit": failure.exit as u8,
                    "message": failure.message,
                    "hint": failure.hint,
                }),
            );
            return;
        }
        // who pressed Ctrl-C knows that it is no error
        let what = if failure.exit == Exit::Interrupted {
            printable(&failure.message)
        } else {
            format!("{} {}", self.red("error:"), printable(&failure.message))
        };
        self.stderr(&what);
        if let Some(hint) = &failure.hint {
            self.stderr(&format!("  {}", printable(hint)));
        }
    }

    /// A question to the person at the terminal, which an empty line answers with yes. Blocks.
    pub(crate) fn confirm(&self, question: &str) -> Outcome<bool> {
        // nothing else may wait for the answer: Ctrl-C has something to say, too
        self.bars.suspend(|| {
            eprint!("{question} [Y/n] ");
            let _ = std::io::stderr().flush();
        });
        let mut answer = String::new();
        let read = std::io::stdin()
            .lock()
            .read_line(&mut answer)
            .map_err(|e| Failure::failed(format!("no answer could be read: {e}")))?;
        // a terminal that was closed has not agreed
        Ok(read > 0
            && matches!(
                answer.trim().to_ascii_lowercase().as_str(),
                "" | "y" | "yes"
            ))
    }

    /// Whether everything is to be agreed to.
    pub(crate) fn says_yes(&self) -> bool {
        self.yes
    }

    /// Asks for a line: with words at a terminal, without them elsewhere.
    pub(crate) fn ask(&self, question: &str) -> Outcome<String> {
        if std::io::stdin().is_terminal() {
            eprint!("{question} ");
            let _ = std::io::stderr().flush();
        }
        let mut line = String::new();
        let read = std::io::stdin()
            .lock()
            .read_line(&mut line)
            .map_err(|e| Failure::failed(format!("standard input can't be read: {e}")))?;
        if read == 0 {
            return Err(Failure::usage("standard input ended without an answer"));
        }
        Ok(line.trim().to_owned())
    }

    pub(crate) fn bold(&self, text: &str) -> String {
        self.styled("1", text)
    }

    pub(crate) fn dim(&self, text: &str) -> String {
        self.styled("2", text)
    }

    fn red(&self, text: &str) -> String {
        self.styled("1;31", text)
    }

    fn styled(&self, style: &str, text: &str) -> String {
        if self.color {
            format!("\u{1b}[{style}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }

    /// Several lines from elsewhere, made harmless, on stdout.
    pub(crate) fn foreign_text(&self, text: &str) -> Outcome<()> {
        if self.json || self.stdout_taken {
            return Ok(());
        }
        self.stdout(printable_lines(text).trim_end_matches('\n'))
    }
}

/// A reader that has gone (`vmdt … | head`) ends the command as it ends others.
fn stdout_error(result: std::io::Result<()>) -> Outcome<()> {
    result.map_err(|e| {
        Failure::new(
            Exit::Failed,
            format!("standard output can't be written: {e}"),
        )
    })
}
