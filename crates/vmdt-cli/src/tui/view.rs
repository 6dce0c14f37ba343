//! What the screen looks like. Everything that comes from others must be harmless already.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Position, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph};

use crate::text::octets;

/// Lines that are kept; beyond it the oldest go.
const MAX_LINES: usize = 2000;
/// Columns of the right side.
const SIDE: u16 = 40;
/// Below this width only the lines are shown.
const NARROW: u16 = 80;
/// Cells of a bar.
const BAR: usize = 10;

/// What is shown beside the lines.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Board {
    pub(crate) title: String,
    pub(crate) members: Vec<MemberRow>,
    /// Shares of a message, and how many rebuild it.
    pub(crate) shares_of: (u16, u16),
    pub(crate) paths: Vec<PathRow>,
    /// By the transfer's id: the newest last.
    pub(crate) transfers: Vec<(String, TransferRow)>,
    /// Shares by what became of them.
    pub(crate) shares: Vec<(&'static str, u64)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemberRow {
    pub(crate) name: String,
    pub(crate) state: &'static str,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PathRow {
    pub(crate) who: String,
    pub(crate) round_trip: Duration,
    /// Of what was sent, 0 to 1.
    pub(crate) loss: f64,
    pub(crate) sent: u64,
}

/// How a transfer goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Going {
    On,
    Done,
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TransferRow {
    pub(crate) name: String,
    /// It arrives here.
    pub(crate) incoming: bool,
    pub(crate) done: u64,
    pub(crate) total: Option<u64>,
    pub(crate) going: Going,
    /// Shares by carrier.
    pub(crate) carriers: BTreeMap<String, u64>,
}

/// The transfers that are shown; of older ones those that have ended go first.
const MAX_TRANSFERS: usize = 16;

impl Board {
    /// Makes or changes a transfer's row.
    pub(crate) fn transfer(
        &mut self,
        id: String,
        new: impl FnOnce() -> TransferRow,
        change: impl FnOnce(&mut TransferRow),
    ) {
        if let Some((_, row)) = self.transfers.iter_mut().find(|(known, _)| *known == id) {
            return change(row);
        }
        if self.transfers.len() >= MAX_TRANSFERS {
            let ended = self
                .transfers
                .iter()
                .position(|(_, row)| row.going != Going::On);
            self.transfers.remove(ended.unwrap_or_default());
        }
        let mut row = new();
        change(&mut row);
        self.transfers.push((id, row));
    }
}

/// The whole screen.
#[derive(Debug, Clone, Default)]
pub(crate) struct Screen {
    pub(crate) board: Board,
    lines: VecDeque<String>,
    /// Rows above the end that the lines are scrolled.
    up: usize,
    pub(crate) input: String,
    /// Before which character of the input the cursor stands.
    pub(crate) cursor: usize,
}

impl Screen {
    pub(crate) fn say(&mut self, line: String) {
        if self.lines.len() >= MAX_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    pub(crate) fn scroll(&mut self, up: i32) {
        let most = self.lines.len();
        self.up = self.up.saturating_add_signed(up as isize).min(most);
    }

    pub(crate) fn scroll_to_end(&mut self) {
        self.up = 0;
    }
}

/// Draws it all.
pub(crate) fn draw(screen: &Screen, frame: &mut Frame<'_>) {
    let [main, entry] =
        Layout::vertical([Constraint::Min(1), Constraint::Length(3)]).areas(frame.area());
    let (said, side) = if frame.area().width < NARROW {
        (main, None)
    } else {
        let [said, side] =
            Layout::horizontal([Constraint::Min(20), Constraint::Length(SIDE)]).areas(main);
        (said, Some(side))
    };
    draw_lines(screen, frame, said);
    if let Some(side) = side {
        draw_side(&screen.board, frame, side);
    }
    draw_entry(screen, frame, entry);
}

/// Columns that a text takes.
fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// Cuts a line into rows, between words where it can.
fn rows(line: &str, columns: usize) -> Vec<String> {
    let mut rows = vec![String::new()];
    for word in line.split_inclusive(' ') {
        for piece in pieces(word, columns) {
            let Some(row) = rows.last_mut() else { break };
            if width(row) + width(piece.trim_end()) > columns && !row.is_empty() {
                rows.push(piece.to_owned());
            } else {
                row.push_str(piece);
            }
        }
    }
    rows
}

/// A word in pieces that fit a row.
fn pieces(word: &str, columns: usize) -> Vec<&str> {
    if width(word.trim_end()) <= columns {
        return vec![word];
    }
    let mut pieces = Vec::new();
    let mut begin = 0;
    for (at, c) in word.char_indices() {
        let end = at + c.len_utf8();
        let fits = word
            .get(begin..end)
            .is_some_and(|piece| width(piece) <= columns);
        if !fits && at > begin {
            pieces.extend(word.get(begin..at));
            begin = at;
        }
    }
    pieces.extend(word.get(begin..));
    pieces
}

fn draw_lines(screen: &Screen, frame: &mut Frame<'_>, area: Rect) {
    let block = Block::bordered().title(format!(" {} ", screen.board.title));
    let inner = block.inner(area);
    let (columns, height) = (usize::from(inner.width.max(1)), usize::from(inner.height));
    // from the end, so that a long talk costs what is shown
    let wanted = height.saturating_add(screen.up);
    let mut shown: VecDeque<String> = VecDeque::new();
    for line in screen.lines.iter().rev() {
        for row in rows(line, columns).into_iter().rev() {
            shown.push_front(row);
        }
        if shown.len() >= wanted {
            break;
        }
    }
    let end = shown
        .len()
        .saturating_sub(screen.up)
        .max(height.min(shown.len()));
    let begin = end.saturating_sub(height);
    let text: Vec<Line<'_>> = shown
        .range(begin..end)
        .map(|row| Line::raw(row.as_str()))
        .collect();
    frame.render_widget(Paragraph::new(text).block(block), area);
}

fn draw_entry(screen: &Screen, frame: &mut Frame<'_>, area: Rect) {
    let block =
        Block::bordered().title(" Enter says it · PgUp/PgDn scroll · /help · Ctrl-C leaves ");
    let inner = block.inner(area);
    let before: String = screen.input.chars().take(screen.cursor).collect();
    let at = width(&before);
    // what does not fit is scrolled, so that the cursor is always seen
    let room = usize::from(inner.width.saturating_sub(1));
    let skip = at.saturating_sub(room);
    let shown = Paragraph::new(screen.input.as_str())
        .block(block)
        .scroll((0, u16::try_from(skip).unwrap_or(u16::MAX)));
    frame.render_widget(shown, area);
    let column = u16::try_from(at - skip).unwrap_or(0);
    frame.set_cursor_position(Position::new(inner.x.saturating_add(column), inner.y));
}

fn draw_side(board: &Board, frame: &mut Frame<'_>, area: Rect) {
    let tall = |rows: usize| {
        Constraint::Length(
            u16::try_from(rows.max(1))
                .unwrap_or(u16::MAX)
                .saturating_add(2),
        )
    };
    let transfers = board
        .transfers
        .iter()
        .map(|(_, row)| transfer_lines(row).len())
        .sum();
    let [members, paths, moving, shares] = Layout::vertical([
        tall(board.members.len()),
        tall(board.paths.len()),
        Constraint::Min(usize::min(transfers, 3) as u16 + 2),
        tall(board.shares.len()),
    ])
    .areas(area);
    let (k, n) = (board.shares_of.1, board.shares_of.0);
    let lines = board.members.iter().map(member_line).collect();
    list(frame, members, " members ", "nobody yet", lines);
    let lines = board.paths.iter().map(path_line).collect();
    list(
        frame,
        paths,
        " paths: round trip, loss, sent ",
        "none yet",
        lines,
    );
    let lines = board
        .transfers
        .iter()
        .rev()
        .flat_map(|(_, row)| transfer_lines(row))
        .collect();
    list(frame, moving, " transfers ", "none; /send WHO PATH", lines);
    let title = format!(" shares: any {k} of {n} rebuild ");
    let lines = board
        .shares
        .iter()
        .map(|(what, count)| Line::raw(format!("{what:<24}{count:>12}")))
        .collect();
    list(frame, shares, &title, "", lines);
}

fn list(frame: &mut Frame<'_>, area: Rect, title: &str, none: &str, lines: Vec<Line<'_>>) {
    let dim = Style::new().add_modifier(Modifier::DIM);
    let lines = if lines.is_empty() {
        vec![Line::styled(none.to_owned(), dim)]
    } else {
        lines
    };
    let block = Block::bordered().title(title.to_owned());
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// A text in so many columns, cut or filled.
fn fit(text: &str, columns: usize) -> String {
    let mut cut = String::new();
    for c in text.chars() {
        cut.push(c);
        if width(&cut) > columns {
            cut.pop();
            while width(&cut) >= columns {
                cut.pop();
            }
            cut.push('…');
            break;
        }
    }
    let fill = columns.saturating_sub(width(&cut));
    cut.extend(std::iter::repeat_n(' ', fill));
    cut
}

fn member_line(row: &MemberRow) -> Line<'static> {
    let color = if row.state == "away" {
        Color::Red
    } else {
        Color::Green
    };
    Line::from(vec![
        Span::raw(fit(&row.name, 32)),
        Span::styled(format!(" {:>4}", row.state), Style::new().fg(color)),
    ])
}

fn path_line(row: &PathRow) -> Line<'static> {
    let lossy = row.loss >= 0.01;
    let loss = Span::styled(
        format!(" {:>5.1}%", row.loss * 100.0),
        if lossy {
            Style::new().fg(Color::Yellow)
        } else {
            Style::new()
        },
    );
    Line::from(vec![
        Span::raw(fit(&row.who, 11)),
        Span::raw(format!(" {:>7.1} ms", row.round_trip.as_secs_f64() * 1e3)),
        loss,
        Span::raw(format!(" {:>8}", octets(row.sent))),
    ])
}

fn transfer_lines(row: &TransferRow) -> Vec<Line<'static>> {
    let arrow = if row.incoming { "<" } else { ">" };
    let state = match (&row.going, row.total) {
        (Going::Done, _) => Span::styled("done", Style::new().fg(Color::Green)),
        (Going::Failed, _) => Span::styled("failed", Style::new().fg(Color::Red)),
        (Going::On, Some(total)) if total > 0 => {
            let part = (row.done as f64 / total as f64).clamp(0.0, 1.0);
            let full = (part * BAR as f64) as usize;
            Span::raw(format!(
                "{}{} {:>3.0}%",
                "━".repeat(full),
                "─".repeat(BAR - full),
                part * 100.0
            ))
        }
        (Going::On, _) => Span::raw(octets(row.done)),
    };
    let mut lines = vec![Line::from(vec![
        Span::raw(format!("{arrow} {} ", fit(&row.name, 19))),
        state,
    ])];
    if !row.carriers.is_empty() {
        let parts: Vec<String> = row
            .carriers
            .iter()
            .map(|(carrier, shares)| format!("{carrier} {shares}"))
            .collect();
        let dim = Style::new().add_modifier(Modifier::DIM);
        let text = format!("    shares: {}", parts.join(", "));
        lines.push(Line::styled(fit(&text, usize::from(SIDE) - 2), dim));
    }
    lines
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
