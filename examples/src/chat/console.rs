//! Lines in and lines out, so that what is printed does not destroy what is being typed.

use std::io::{BufRead, IsTerminal, Write};
use std::thread;

use anyhow::Result;
use rustyline::error::ReadlineError;
use rustyline::history::MemHistory;
use rustyline::{Config, Editor, ExternalPrinter};
use tokio::sync::{mpsc, oneshot};

use super::command::Command;

/// Lines that wait to be acted on or printed. Beyond it whoever brings more waits.
const QUEUE: usize = 256;

type LineEditor = Editor<(), MemHistory>;

/// Prints lines above the one that is being typed. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Printer {
    lines: mpsc::Sender<String>,
}

impl Printer {
    /// Prints one line, which must hold nothing that harms a terminal.
    pub(crate) async fn print(&self, line: impl Into<String>) {
        // without a printing thread there is nobody to see it
        let _ = self.lines.send(line.into()).await;
    }
}

/// A terminal with a line editor, or plain streams where there is none.
#[derive(Debug)]
pub(crate) struct Console {
    pub(crate) printer: Printer,
    /// What was typed; ends after [`Command::Quit`] or the input's end.
    pub(crate) commands: mpsc::Receiver<Command>,
    /// Whether a person types.
    pub(crate) interactive: bool,
    printed: oneshot::Receiver<()>,
}

impl Console {
    /// Begins to read and to print, on threads of their own.
    pub(crate) fn start(prompt: String) -> Result<Console> {
        let interactive = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        let (lines, to_print) = mpsc::channel(QUEUE);
        let (typed, commands) = mpsc::channel(QUEUE);
        let (done, printed) = oneshot::channel();
        if interactive {
            let mut editor = LineEditor::with_history(Config::default(), MemHistory::new())?;
            let mut out = editor.create_external_printer()?;
            // printing waits while the editor is between two lines; nothing else must wait with it
            thread::spawn(move || print_lines(to_print, done, |line| out.print(line).is_ok()));
            thread::spawn(move || edit_lines(&mut editor, &prompt, &typed));
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
            commands,
            interactive,
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

fn edit_lines(editor: &mut LineEditor, prompt: &str, typed: &mpsc::Sender<Command>) {
    loop {
        let command = match editor.readline(prompt) {
            Ok(line) => {
                let _ = editor.add_history_entry(line.as_str());
                Command::parse(&line)
            }
            Err(ReadlineError::Signal(_)) => continue,
            // Ctrl-C, Ctrl-D, or the terminal is gone
            Err(_) => Some(Command::Quit),
        };
        let Some(command) = command else { continue };
        let last = command == Command::Quit;
        if typed.blocking_send(command).is_err() || last {
            return;
        }
    }
}

fn read_lines(typed: &mpsc::Sender<Command>) {
    for line in std::io::stdin().lock().split(b'\n') {
        let Ok(line) = line else { return };
        let Some(command) = Command::parse(&String::from_utf8_lossy(&line)) else {
            continue;
        };
        let last = command == Command::Quit;
        if typed.blocking_send(command).is_err() || last {
            return;
        }
    }
}
