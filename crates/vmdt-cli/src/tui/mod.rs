//! The full screen of a chat: what was said, members, paths, transfers, shares.

mod input;
pub(crate) mod view;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};

use self::input::{Action, Input};
use self::view::{Board, Screen};
use crate::failure::{Failure, Outcome};

/// How long a key is waited for before it is looked what there is to show.
const LOOK: Duration = Duration::from_millis(50);
/// How long lines wait to be taken when the program is busy.
const RETRY: Duration = Duration::from_millis(10);

/// What the screen shows beside the lines; whoever knows more writes it here. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shown(Arc<Mutex<(u64, Board)>>);

impl Shown {
    /// Changes what is shown.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Board)) {
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut shown.1);
        shown.0 += 1;
    }

    /// What is shown, when it changed since this version.
    fn after(&self, version: &mut u64) -> Option<Board> {
        let shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (shown.0 != *version).then(|| {
            *version = shown.0;
            shown.1.clone()
        })
    }
}

/// Takes the terminal, on a thread of its own, until nobody prints any more.
///
/// # Errors
/// When there is no terminal that could be filled.
pub(crate) fn start(
    shown: Shown,
    commands: &[&str],
    lines: mpsc::Receiver<String>,
    typed: mpsc::Sender<String>,
    done: oneshot::Sender<()>,
) -> Outcome<()> {
    let mut input = Input::new(commands);
    let mut terminal = ratatui::try_init()
        .map_err(|e| Failure::failed(format!("the screen can't be filled: {e}")))?;
    std::thread::spawn(move || {
        let rest = run(&mut terminal, &shown, &mut input, lines, typed);
        let _ = ratatui::try_restore();
        for line in rest {
            // the last words belong where the person looks now
            use std::io::Write as _;
            let _ = writeln!(std::io::stdout().lock(), "{line}");
        }
        let _ = done.send(());
    });
    Ok(())
}

/// Shows and reads until the printers are gone. Gives what was said after the person left.
fn run(
    terminal: &mut DefaultTerminal,
    shown: &Shown,
    input: &mut Input,
    mut lines: mpsc::Receiver<String>,
    typed: mpsc::Sender<String>,
) -> Vec<String> {
    let mut screen = Screen::default();
    let mut version = u64::MAX;
    let mut typed = Some(typed);
    let mut rest = Vec::new();
    loop {
        let mut changed = false;
        loop {
            match lines.try_recv() {
                Ok(line) => {
                    if typed.is_none() {
                        rest.push(line.clone());
                    }
                    screen.say(line);
                    changed = true;
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return rest,
            }
        }
        if let Some(board) = shown.after(&mut version) {
            screen.board = board;
            changed = true;
        }
        if changed {
            input.show(&mut screen);
            // a terminal that has gone ends the reading below
            let _ = terminal.draw(|frame| view::draw(&screen, frame));
        }
        if typed.is_none() {
            std::thread::sleep(LOOK);
            continue;
        }
        let action = match event::poll(LOOK).and_then(|there| there.then(event::read).transpose()) {
            Ok(Some(Event::Key(key))) if key.kind != KeyEventKind::Release => input.key(key),
            Ok(Some(Event::Paste(text))) => input.paste(&text),
            Ok(Some(Event::Resize(..))) => Action::Changed,
            Ok(_) => Action::None,
            Err(_) => Action::Quit,
        };
        match action {
            Action::None => continue,
            Action::Changed => {}
            Action::Scroll(lines) => screen.scroll(lines),
            Action::Line(line) => {
                screen.scroll_to_end();
                if let Some(to) = &typed {
                    hand_over(to, line);
                }
            }
            // whoever reads the lines sees their end, and ends the rest in order
            Action::Quit => typed = None,
        }
        input.show(&mut screen);
        let _ = terminal.draw(|frame| view::draw(&screen, frame));
    }
}

/// Waits for room: lines are typed slower than they are taken.
fn hand_over(to: &mpsc::Sender<String>, line: String) {
    let mut line = line;
    while let Err(mpsc::error::TrySendError::Full(again)) = to.try_send(line) {
        line = again;
        std::thread::sleep(RETRY);
    }
}
