//! The line that is being typed.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::view::Screen;
use crate::text::steers;

/// The longest line, in characters.
const MAX_LINE: usize = 4096;
/// Lines of history that are kept.
const MAX_HISTORY: usize = 200;
/// Lines that a page key scrolls.
const PAGE: i32 = 10;

/// What a key leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    None,
    /// Only the look.
    Changed,
    /// A line was entered.
    Line(String),
    /// So many lines up, or down when negative.
    Scroll(i32),
    Quit,
}

/// The line, the cursor in it, and earlier lines.
#[derive(Debug, Default)]
pub(super) struct Input {
    line: Vec<char>,
    /// Before which character it stands.
    cursor: usize,
    history: Vec<String>,
    /// Which line of the history is shown.
    earlier: Option<usize>,
    commands: Vec<String>,
}

impl Input {
    pub(super) fn new(commands: &[&str]) -> Input {
        Input {
            commands: commands.iter().map(|c| (*c).to_owned()).collect(),
            ..Input::default()
        }
    }

    /// Puts it on the screen.
    pub(super) fn show(&self, screen: &mut Screen) {
        screen.input = self.line.iter().collect();
        screen.cursor = self.cursor;
    }

    pub(super) fn key(&mut self, key: KeyEvent) -> Action {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if control => return Action::Quit,
            KeyCode::Char('d') if control && self.line.is_empty() => return Action::Quit,
            KeyCode::Char('a') if control => self.cursor = 0,
            KeyCode::Char('e') if control => self.cursor = self.line.len(),
            KeyCode::Char('u') if control => {
                self.line.drain(..self.cursor);
                self.cursor = 0;
            }
            KeyCode::Char('w') if control => self.erase_word(),
            KeyCode::Char(_) if control => return Action::None,
            KeyCode::Char(c) => self.insert(c),
            KeyCode::Tab => self.complete(),
            KeyCode::Backspace if self.cursor > 0 => {
                self.cursor -= 1;
                self.line.remove(self.cursor);
            }
            KeyCode::Delete if self.cursor < self.line.len() => {
                self.line.remove(self.cursor);
            }
            KeyCode::Left => self.cursor = self.cursor.saturating_sub(1),
            KeyCode::Right => self.cursor = (self.cursor + 1).min(self.line.len()),
            KeyCode::Home => self.cursor = 0,
            KeyCode::End => self.cursor = self.line.len(),
            KeyCode::Up => self.recall(true),
            KeyCode::Down => self.recall(false),
            KeyCode::PageUp => return Action::Scroll(PAGE),
            KeyCode::PageDown => return Action::Scroll(-PAGE),
            KeyCode::Enter => return self.enter(),
            _ => return Action::None,
        }
        Action::Changed
    }

    /// What was pasted, as one line.
    pub(super) fn paste(&mut self, text: &str) -> Action {
        text.chars()
            .map(|c| if c == '\n' || c == '\t' { ' ' } else { c })
            .for_each(|c| self.insert(c));
        Action::Changed
    }

    fn insert(&mut self, c: char) {
        if self.line.len() < MAX_LINE && !c.is_control() && !steers(c) {
            self.line.insert(self.cursor, c);
            self.cursor += 1;
        }
    }

    fn set(&mut self, text: &str) {
        self.line = text.chars().collect();
        self.cursor = self.line.len();
    }

    fn erase_word(&mut self) {
        let before = self.line.get(..self.cursor).unwrap_or_default();
        let kept = before.iter().rposition(|c| !c.is_whitespace());
        let kept = kept.map_or(0, |end| {
            let word = before.get(..end).unwrap_or_default();
            word.iter()
                .rposition(|c| c.is_whitespace())
                .map_or(0, |at| at + 1)
        });
        self.line.drain(kept..self.cursor);
        self.cursor = kept;
    }

    fn complete(&mut self) {
        let typed: String = self.line.iter().collect();
        if typed.is_empty() {
            return;
        }
        let mut fitting = self.commands.iter().filter(|c| c.starts_with(&typed));
        if let (Some(only), None) = (fitting.next(), fitting.next()) {
            let whole = format!("{only} ");
            self.set(&whole);
        }
    }

    fn recall(&mut self, back: bool) {
        let at = match (self.earlier, back) {
            (None, true) => self.history.len().checked_sub(1),
            (None, false) => return,
            (Some(at), true) => Some(at.saturating_sub(1)),
            (Some(at), false) => Some(at + 1),
        };
        let line = at.and_then(|at| self.history.get(at)).cloned();
        self.earlier = at.filter(|_| line.is_some());
        self.set(&line.unwrap_or_default());
    }

    fn enter(&mut self) -> Action {
        let line: String = self.line.iter().collect();
        self.set("");
        self.earlier = None;
        let line = line.trim();
        if line.is_empty() {
            return Action::Changed;
        }
        if self.history.last().is_none_or(|last| last != line) {
            if self.history.len() >= MAX_HISTORY {
                self.history.remove(0);
            }
            self.history.push(line.to_owned());
        }
        Action::Line(line.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(input: &mut Input, text: &str) {
        for c in text.chars() {
            input.key(KeyEvent::from(KeyCode::Char(c)));
        }
    }

    fn press(input: &mut Input, code: KeyCode) -> Action {
        input.key(KeyEvent::from(code))
    }

    fn control(input: &mut Input, c: char) -> Action {
        input.key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL))
    }

    #[test]
    fn a_line_is_edited_where_the_cursor_is() {
        let mut input = Input::new(&[]);
        typed(&mut input, "hllo wörld");
        press(&mut input, KeyCode::Home);
        press(&mut input, KeyCode::Right);
        typed(&mut input, "e");
        press(&mut input, KeyCode::End);
        press(&mut input, KeyCode::Backspace);
        press(&mut input, KeyCode::Delete);
        let line = Action::Line("hello wörl".into());
        assert_eq!(press(&mut input, KeyCode::Enter), line);
        assert_eq!(press(&mut input, KeyCode::Enter), Action::Changed, "empty");
    }

    #[test]
    fn words_and_the_beginning_are_erased() {
        let mut input = Input::new(&[]);
        typed(&mut input, "one two  ");
        control(&mut input, 'w');
        assert_eq!(input.line.iter().collect::<String>(), "one ");
        typed(&mut input, "x");
        press(&mut input, KeyCode::Left);
        control(&mut input, 'u');
        assert_eq!(input.line.iter().collect::<String>(), "x");
        control(&mut input, 'w');
        assert_eq!(input.line.len(), 1, "nothing before the cursor");
    }

    #[test]
    fn earlier_lines_come_back() {
        let mut input = Input::new(&[]);
        for line in ["one", "two", "two"] {
            typed(&mut input, line);
            press(&mut input, KeyCode::Enter);
        }
        let shown = |input: &Input| input.line.iter().collect::<String>();
        press(&mut input, KeyCode::Down);
        assert_eq!(shown(&input), "");
        press(&mut input, KeyCode::Up);
        assert_eq!(shown(&input), "two");
        press(&mut input, KeyCode::Up);
        press(&mut input, KeyCode::Up);
        assert_eq!(shown(&input), "one");
        press(&mut input, KeyCode::Down);
        press(&mut input, KeyCode::Down);
        assert_eq!(shown(&input), "", "beyond the last");
    }

    #[test]
    fn a_command_is_completed_when_only_one_fits() {
        let mut input = Input::new(&["/paths", "/present", "/quit"]);
        typed(&mut input, "/p");
        press(&mut input, KeyCode::Tab);
        assert_eq!(input.line.len(), 2);
        typed(&mut input, "a");
        press(&mut input, KeyCode::Tab);
        assert_eq!(
            press(&mut input, KeyCode::Enter),
            Action::Line("/paths".into())
        );
    }

    #[test]
    fn what_is_pasted_is_one_line_without_control_characters() {
        let mut input = Input::new(&[]);
        input.paste("a\nb\u{1b}[31m\u{202e}c");
        assert_eq!(input.line.iter().collect::<String>(), "a b[31mc");
        input.paste(&"x".repeat(2 * MAX_LINE));
        assert_eq!(input.line.len(), MAX_LINE);
    }

    #[test]
    fn ctrl_c_leaves_and_ctrl_d_only_from_an_empty_line() {
        let mut input = Input::new(&[]);
        assert_eq!(control(&mut input, 'd'), Action::Quit);
        typed(&mut input, "x");
        assert_eq!(control(&mut input, 'd'), Action::None);
        assert_eq!(control(&mut input, 'c'), Action::Quit);
        assert_eq!(press(&mut input, KeyCode::PageUp), Action::Scroll(PAGE));
    }
}
