use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;

fn board() -> Board {
    Board {
        title: "vmdt chat 7-crossover-clockwork".into(),
        members: vec![
            MemberRow {
                name: "ana (@mAp-m_Hn7Qd-jJe)".into(),
                state: "you",
            },
            MemberRow {
                name: "bob (@cxH4UnDhRO7wMQ1)".into(),
                state: "here",
            },
            MemberRow {
                name: "carol (@7tzrrHM5uMQMgHT)".into(),
                state: "away",
            },
        ],
        shares_of: (3, 2),
        paths: vec![PathRow {
            who: "bob".into(),
            round_trip: Duration::from_micros(12_340),
            loss: 0.025,
            sent: 1_500_000,
        }],
        transfers: vec![(
            "t".into(),
            TransferRow {
                name: "a-rather-long-report-name.pdf".into(),
                incoming: false,
                done: 500,
                total: Some(1000),
                going: Going::On,
                carriers: [("direct".to_owned(), 3), ("via bob".to_owned(), 2)].into(),
            },
        )],
        shares: vec![("moved to another path", 4)],
    }
}

fn rendered(screen: &Screen, columns: u16, lines: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(columns, lines)).unwrap();
    terminal.draw(|frame| draw(screen, frame)).unwrap();
    let buffer = terminal.backend().buffer();
    (0..lines)
        .map(|y| (0..columns).map(|x| buffer[(x, y)].symbol()).collect())
        .collect()
}

fn screen(said: &[&str]) -> Screen {
    let mut screen = Screen {
        board: board(),
        ..Screen::default()
    };
    for line in said {
        screen.say((*line).to_owned());
    }
    screen
}

#[test]
fn members_paths_transfers_and_shares_stand_beside_what_is_said() {
    let rows = rendered(&screen(&["bob: hello", "ana: hi"]), 100, 30);
    let all = rows.join("\n");
    for wanted in [
        "vmdt chat 7-crossover-clockwork",
        "bob: hello",
        "ana: hi",
        "ana (@mAp-m_Hn7Qd-jJe)",
        "you",
        "away",
        "bob            12.3 ms   2.5%   1.5 MB",
        "> a-rather-long-repo… ━━━━━─────  50%",
        "shares: direct 3, via bob 2",
        "shares: any 2 of 3 rebuild",
        "moved to another path",
    ] {
        assert!(all.contains(wanted), "{wanted:?} is not in\n{all}");
    }
    assert!(rows.iter().all(|row| width(row) == 100));
}

#[test]
fn a_narrow_screen_shows_what_is_said_alone() {
    let all = rendered(&screen(&["bob: hello"]), 60, 20).join("\n");
    assert!(
        all.contains("bob: hello") && !all.contains("members"),
        "{all}"
    );
}

#[test]
fn the_newest_lines_are_seen_until_it_is_scrolled() {
    let lines: Vec<String> = (0..100).map(|n| format!("line {n}.")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let mut screen = screen(&lines);
    let all = |screen: &Screen| rendered(screen, 60, 15).join("\n");
    assert!(all(&screen).contains("line 99.") && !all(&screen).contains("line 80."));
    screen.scroll(20);
    assert!(!all(&screen).contains("line 99.") && all(&screen).contains("line 79."));
    screen.scroll(i32::MAX);
    assert!(all(&screen).contains("line 0."));
    screen.scroll(i32::MIN);
    assert!(all(&screen).contains("line 99."));
    screen.scroll(5);
    screen.scroll_to_end();
    assert!(all(&screen).contains("line 99."));
}

#[test]
fn long_lines_are_cut_between_words_and_long_words_anywhere() {
    assert_eq!(rows("one two three", 8), ["one two ", "three"]);
    assert_eq!(rows("abcdefghij", 4), ["abcd", "efgh", "ij"]);
    assert_eq!(
        rows("日本語", 4),
        ["日本", "語"],
        "wide characters take two"
    );
    assert_eq!(rows("", 4), [""]);
    let all = rendered(&screen(&[&"word ".repeat(60)]), 60, 20).join("");
    assert_eq!(all.matches("word").count(), 60, "nothing is lost");
}

#[test]
fn the_cursor_is_seen_however_long_the_line_is() {
    let mut screen = screen(&[]);
    screen.input = "x".repeat(500) + "END";
    screen.cursor = 503;
    let mut terminal = Terminal::new(TestBackend::new(60, 12)).unwrap();
    terminal.draw(|frame| draw(&screen, frame)).unwrap();
    let at = terminal.get_cursor_position().unwrap();
    assert!(at.x < 59 && at.y == 10, "{at:?}");
    assert!(rendered(&screen, 60, 12).join("").contains("END"));
}

#[test]
fn the_smallest_terminals_are_no_failure() {
    for (columns, lines) in [(1, 1), (2, 3), (10, 2), (80, 3), (81, 5), (200, 1)] {
        rendered(&screen(&["hello"]), columns, lines);
    }
}

#[test]
fn of_many_transfers_those_that_ended_make_room() {
    let mut board = Board::default();
    let row = |going| TransferRow {
        name: "x".into(),
        incoming: true,
        done: 0,
        total: None,
        going,
        carriers: BTreeMap::new(),
    };
    for n in 0..MAX_TRANSFERS {
        let going = if n == 3 { Going::Done } else { Going::On };
        board.transfer(n.to_string(), || row(going), |_| ());
    }
    board.transfer("new".into(), || row(Going::On), |row| row.done = 7);
    assert_eq!(board.transfers.len(), MAX_TRANSFERS);
    assert!(!board.transfers.iter().any(|(id, _)| id == "3"));
    board.transfer("new".into(), || panic!("it is there"), |row| row.done += 1);
    assert_eq!(board.transfers.last().unwrap().1.done, 8);
}
