//! Lines in and lines out, so that what is printed does not destroy what is being typed.

#![allow(clippy::print_stdout, reason = "a program talks to whoever started it")]

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::thread;

use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{
    Config, Context, Editor, ExternalPrinter as _, Helper, Highlighter, Hinter, Validator,
};
use tokio::sync::{mpsc, oneshot};

use crate::failure::{Failure, Outcome};
use crate::tui::Shown;

/// Lines that wait to be acted on or printed. Beyond it whoever brings more waits.
const QUEUE: usize = 256;
/// Lines of history that are kept.
const MAX_HISTORY: usize = 1000;

/// Completes commands at the beginning of a line and file names behind them.
#[derive(Helper, Hinter, Highlighter, Validator)]
struct Words {
    commands: Vec<String>,
    files: FilenameCompleter,
}

impl Completer for Words {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        at: usize,
        context: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let typed = line.get(..at).unwrap_or_default();
        if typed.contains(char::is_whitespace) {
            return self.files.complete(line, at, context);
        }
        let fitting = self
            .commands
            .iter()
            .filter(|command| command.starts_with(typed));
        let pairs = fitting.map(|c| Pair {
            display: c.clone(),
            replacement: format!("{c} "),
        });
        Ok((0, pairs.collect()))
    }
}

type LineEditor = Editor<Words, FileHistory>;

/// Prints lines above the one that is being typed. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Printer {
    lines: mpsc::Sender<String>,
}

impl Printer {
    /// Prints a line, which must hold nothing that harms a terminal.
    pub(crate) async fn print(&self, line: impl Into<String>) {
        // without a printing thread there is nobody to see it
        let _ = self.lines.send(line.into()).await;
    }
}

/// A terminal with a line editor, or plain streams where there is none.
#[derive(Debug)]
pub(crate) struct Console {
    pub(crate) printer: Printer,
    /// What was typed, without blanks around it and without empty lines; ends with the input.
    pub(crate) lines: mpsc::Receiver<String>,
    /// Whether a person types.
    pub(crate) interactive: bool,
    printed: oneshot::Receiver<()>,
}

impl Console {
    /// Begins to read and to print, on threads of their own.
    ///
    /// # Errors
    /// When the terminal can't be used.
    pub(crate) fn start(
        prompt: &str,
        commands: &[&str],
        history: Option<PathBuf>,
    ) -> Outcome<Console> {
        let interactive = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        let (lines, to_print) = mpsc::channel(QUEUE);
        let (typed, read) = mpsc::channel(QUEUE);
        let (done, printed) = oneshot::channel();
        if interactive {
            let fail =
                |e: ReadlineError| Failure::failed(format!("the terminal can't be used: {e}"));
            let config = Config::builder()
                .max_history_size(MAX_HISTORY)
                .map_err(fail)?
                .auto_add_history(true)
                .build();
            let mut editor = LineEditor::with_config(config).map_err(fail)?;
            editor.set_helper(Some(Words {
                commands: commands.iter().map(|c| (*c).to_owned()).collect(),
                files: FilenameCompleter::new(),
            }));
            if let Some(history) = &history {
                let _ = editor.load_history(history);
            }
            let mut out = editor.create_external_printer().map_err(fail)?;
            let prompt = prompt.to_owned();
            // printing waits while the editor is between two lines; nothing else must wait with it
            thread::spawn(move || print_lines(to_print, done, |line| out.print(line).is_ok()));
            thread::spawn(move || edit_lines(&mut editor, &prompt, &typed, history.as_ref()));
        } else {
            thread::spawn(move || {
                print_lines(to_print, done, |line| {
                    let mut out = std::io::stdout().lock();
                    out.write_all(line.as_bytes())
                        .and_then(|()| out.flush())
                        .is_ok()
                });
            });
            thread::spawn(move || read_lines(&typed));
        }
        Ok(Console {
            printer: Printer { lines },
            lines: read,
            interactive,
            printed,
        })
    }

    /// Fills the screen of the terminal.
    ///
    /// # Errors
    /// When there is no terminal, or it can't be used.
    pub(crate) fn full_screen(shown: Shown, commands: &[&str]) -> Outcome<Console> {
        if !(std::io::stdin().is_terminal() && std::io::stdout().is_terminal()) {
            return Err(Failure::usage("--tui needs a terminal to fill").hint("leave it out"));
        }
        let (lines, to_print) = mpsc::channel(QUEUE);
        let (typed, read) = mpsc::channel(QUEUE);
        let (done, printed) = oneshot::channel();
        crate::tui::start(shown, commands, to_print, typed, done)?;
        Ok(Console {
            printer: Printer { lines },
            lines: read,
            interactive: true,
            printed,
        })
    }

    /// Waits until everything is printed. Other printers must be gone.
    pub(crate) async fn finish(self) {
        drop(self.printer);
        let _ = self.printed.await;
    }
}

fn print_lines(
    mut lines: mpsc::Receiver<String>,
    done: oneshot::Sender<()>,
    mut print: impl FnMut(String) -> bool,
) {
    while let Some(mut line) = lines.blocking_recv() {
        line.push('\n');
        if !print(line) {
            break;
        }
    }
    let _ = done.send(());
}

fn edit_lines(
    editor: &mut LineEditor,
    prompt: &str,
    typed: &mpsc::Sender<String>,
    history: Option<&PathBuf>,
) {
    loop {
        match editor.readline(prompt) {
            Ok(line) => {
                let line = line.trim();
                if !line.is_empty() && typed.blocking_send(line.to_owned()).is_err() {
                    return;
                }
            }
            Err(ReadlineError::Signal(_)) => {}
            // Ctrl-C, Ctrl-D, or the terminal is gone
            Err(_) => break,
        }
        if let Some(history) = history {
            let _ = editor.save_history(history);
        }
    }
}

fn read_lines(typed: &mpsc::Sender<String>) {
    for line in std::io::stdin().lock().split(b'\n') {
        let Ok(line) = line else { return };
        let line = String::from_utf8_lossy(&line).trim().to_owned();
        if !line.is_empty() && typed.blocking_send(line).is_err() {
            return;
        }
    }
}
