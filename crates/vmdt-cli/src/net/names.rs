//! Names for people. A name is what a member calls itself: it proves nothing, so the id always
//! stands beside it.

use std::collections::BTreeMap;

use vmdt_node::MemberStatus;

use super::Peer;
use crate::failure::{Failure, Outcome};

/// The most characters of a name that are shown.
const MAX_NAME: usize = 24;

/// A name as one harmless word that can be typed; `None` when nothing is left of it.
pub(crate) fn tidy(name: &str) -> Option<String> {
    let word: String = name
        .trim()
        .chars()
        .take(MAX_NAME)
        .map(|c| {
            if c.is_alphanumeric() || matches!(c, '-' | '_' | '.') {
                c
            } else {
                '_'
            }
        })
        .collect();
    (!word.is_empty()).then_some(word)
}

/// What members call themselves.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names(BTreeMap<Peer, String>);

impl Names {
    pub(crate) fn of<'a>(members: impl IntoIterator<Item = &'a MemberStatus>) -> Names {
        Names(
            members
                .into_iter()
                .filter_map(|member| Some((member.id, tidy(member.name.as_deref()?)?)))
                .collect(),
        )
    }

    /// `alice (@id)`, or the id alone.
    pub(crate) fn show(&self, peer: Peer) -> String {
        match self.0.get(&peer) {
            Some(name) => format!("{name} ({peer})"),
            None => peer.to_string(),
        }
    }

    pub(crate) fn name(&self, peer: Peer) -> Option<&str> {
        self.0.get(&peer).map(String::as_str)
    }
}

/// The member that a person means: by its id, the beginning of it, or its name where only one has
/// that name.
///
/// # Errors
/// Nobody, or more than one.
pub(crate) fn resolve(text: &str, members: &[MemberStatus]) -> Outcome<Peer> {
    if let Some(member) = members.iter().find(|member| member.id.as_str() == text) {
        return Ok(member.id);
    }
    let begins = |member: &&MemberStatus| {
        text.len() > 4 && text.starts_with('@') && member.id.as_str().starts_with(text)
    };
    let named =
        |member: &&MemberStatus| member.name.as_deref().and_then(tidy).as_deref() == Some(text);
    let found: Vec<Peer> = members
        .iter()
        .filter(|member| begins(member) || named(member))
        .map(|member| member.id)
        .collect();
    match found.as_slice() {
        [one] => Ok(*one),
        [] => Err(Failure::usage(format!(
            "{text:?} is neither id nor name of a member; `members` shows them"
        ))),
        several => {
            let ids: Vec<String> = several.iter().map(ToString::to_string).collect();
            Err(Failure::usage(format!(
                "{text:?} is {} members: {}",
                several.len(),
                ids.join(", ")
            ))
            .hint("use the id"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_becomes_one_harmless_word() {
        assert_eq!(tidy(" Ännchen von T. ").as_deref(), Some("Ännchen_von_T."));
        assert_eq!(tidy("a\u{1b}[31m (@x)").as_deref(), Some("a__31m___x_"));
        assert_eq!(tidy("  "), None);
        assert_eq!(
            tidy(&"x".repeat(200)).map(|name| name.len()),
            Some(MAX_NAME)
        );
    }

    #[test]
    fn an_id_stands_beside_its_name() {
        let id: Peer = "bob".parse().unwrap();
        let names = Names([(id, "robert".to_owned())].into());
        assert_eq!(names.show(id), "robert (bob)");
        assert_eq!(names.show("eve".parse().unwrap()), "eve");
    }
}
