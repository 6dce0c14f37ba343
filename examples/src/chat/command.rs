//! What can be typed.

/// The commands, for `/help`.
pub(crate) const HELP: [&str; 6] = [
    "a line without a slash goes to everybody who is here; // begins a line with a slash",
    "/members         who is here, and how they are reached",
    "/send WHO PATH   send a file to a member, by name or id",
    "/leave, /join    leave the room; come back",
    "/quit            leave and end (also Ctrl-D and Ctrl-C)",
    "/help            this",
];

/// A line that was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// Text for everybody.
    Say(String),
    /// `/members`
    Members,
    /// `/send ID PATH`
    Send { to: String, path: String },
    /// `/leave`
    Leave,
    /// `/join`
    Join,
    /// `/quit`
    Quit,
    /// `/help`
    Help,
    /// Something else with a slash, and what is wrong with it.
    Unknown(String),
}

impl Command {
    /// Reads a line; `None` when there is nothing on it.
    pub(crate) fn parse(line: &str) -> Option<Command> {
        let line = line.trim();
        if line.is_empty() {
            return None;
        }
        let Some(rest) = line.strip_prefix('/') else {
            return Some(Command::Say(line.to_owned()));
        };
        if rest.starts_with('/') {
            return Some(Command::Say(rest.to_owned()));
        }
        let (word, arguments) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let arguments = arguments.trim();
        Some(match (word, arguments.is_empty()) {
            ("members", true) => Command::Members,
            ("leave", true) => Command::Leave,
            ("join", true) => Command::Join,
            ("quit" | "exit", true) => Command::Quit,
            ("help", true) => Command::Help,
            ("send", _) => match arguments.split_once(char::is_whitespace) {
                Some((to, path)) => Command::Send {
                    to: to.to_owned(),
                    path: path.trim().to_owned(),
                },
                None => Command::Unknown("a member and a file are needed: /send WHO PATH".into()),
            },
            ("members" | "leave" | "join" | "quit" | "exit" | "help", false) => {
                Command::Unknown(format!("nothing stands behind /{word}"))
            }
            _ => Command::Unknown(format!("there is no command /{word}; /help lists them")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_without_a_slash_are_text() {
        assert_eq!(
            Command::parse("  hi there \r"),
            Some(Command::Say("hi there".into()))
        );
        assert_eq!(
            Command::parse("//etc is a folder"),
            Some(Command::Say("/etc is a folder".into()))
        );
        assert_eq!(Command::parse(" \t"), None);
    }

    #[test]
    fn a_path_may_hold_blanks() {
        let send = Command::Send {
            to: "bob".into(),
            path: "my holiday.jpg".into(),
        };
        assert_eq!(Command::parse("/send bob  my holiday.jpg "), Some(send));
        assert!(matches!(
            Command::parse("/send bob"),
            Some(Command::Unknown(_))
        ));
        assert!(matches!(Command::parse("/send"), Some(Command::Unknown(_))));
    }

    #[test]
    fn a_mistyped_command_is_not_said_aloud() {
        for line in ["/quti", "/", "/members bob", "/Quit"] {
            assert!(
                matches!(Command::parse(line), Some(Command::Unknown(_))),
                "{line}"
            );
        }
        assert_eq!(Command::parse("/quit"), Some(Command::Quit));
        assert_eq!(Command::parse(" /members"), Some(Command::Members));
    }
}
