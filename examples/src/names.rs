//! What members call themselves, for people to read and to type.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use vmdt_node::{Carrier, ClusterStatus, NodeId};

use crate::terminal::printable;

/// Names that are kept of nodes that are not members any more.
const MAX_FORMER: usize = 1_024;

/// The names of members. A name is what a member says of itself: it proves nothing, several may
/// have the same, and it comes a moment after the member. The id is sure.
#[derive(Debug, Clone, Default)]
pub struct Names(BTreeMap<NodeId, String>);

impl Names {
    /// Takes in a node's name. An empty one is none.
    pub fn insert(&mut self, id: NodeId, name: &str) {
        if !name.is_empty() {
            self.0.insert(id, name.to_owned());
        }
    }

    /// Takes in the names of a cluster's members, and keeps those of members that have left: one
    /// may still have to be told of them.
    pub fn learn(&mut self, status: &ClusterStatus) {
        if self.0.len() > status.members.len().saturating_add(MAX_FORMER) {
            self.0
                .retain(|id, _| status.members.iter().any(|member| member.id == *id));
        }
        for member in &status.members {
            if let Some(name) = &member.name {
                self.insert(member.id, name);
            }
        }
    }

    /// A node as people know it: its name, with the id where that alone says nothing, else the
    /// id. It can't harm a terminal.
    #[must_use]
    pub fn show(&self, id: NodeId) -> String {
        match self.0.get(&id) {
            // what looks like an id is not to be taken for one
            Some(name)
                if name.starts_with('@') || self.0.values().filter(|n| *n == name).count() > 1 =>
            {
                format!("{} ({id})", printable(name))
            }
            Some(name) => printable(name),
            None => id.to_string(),
        }
    }

    /// A carrier as people know it.
    #[must_use]
    pub fn carrier(&self, carrier: Carrier) -> String {
        match carrier {
            Carrier::Member(id) => format!("via {}", self.show(id)),
            other => other.to_string(),
        }
    }

    /// Several nodes as people know them.
    #[must_use]
    pub fn list(&self, ids: &[NodeId]) -> String {
        let names: Vec<_> = ids.iter().map(|id| self.show(*id)).collect();
        names.join(", ")
    }

    /// Who of these is meant by a name or an id; `None` when nobody is.
    ///
    /// # Errors
    /// When several of them have the name.
    pub fn find(&self, text: &str, among: &[NodeId]) -> Result<Option<NodeId>> {
        if let Some(id) = among.iter().find(|id| id.as_str() == text) {
            return Ok(Some(*id));
        }
        let named: Vec<NodeId> = among
            .iter()
            .copied()
            .filter(|id| self.0.get(id).is_some_and(|name| name == text))
            .collect();
        match named.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(*one)),
            several => {
                let ids: Vec<_> = several.iter().map(ToString::to_string).collect();
                bail!(
                    "{} members are called {}; say which by its id: {}",
                    several.len(),
                    printable(text),
                    ids.join(", ")
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> NodeId {
        text.parse().unwrap()
    }

    fn names() -> (Names, [NodeId; 4]) {
        let ids = ["ann", "bob1", "bob2", "new"].map(id);
        let mut names = Names::default();
        names.insert(ids[0], "Ann\u{1b}[2J");
        names.insert(ids[1], "bob");
        names.insert(ids[2], "bob");
        names.insert(ids[3], "");
        (names, ids)
    }

    #[test]
    fn a_name_is_shown_with_the_id_only_where_it_is_not_clear() {
        let (names, [ann, bob1, _, new]) = names();
        assert_eq!(names.show(ann), "Ann\\u{1b}[2J");
        assert_eq!(names.show(bob1), "bob (bob1)");
        assert_eq!(names.show(new), "new");
        let mut names = Names::default();
        names.insert(ann, "@AAAAAAAAAAAAAAA");
        assert_eq!(names.show(ann), "@AAAAAAAAAAAAAAA (ann)");
    }

    #[test]
    fn a_node_is_found_by_its_id_or_by_a_name_that_only_it_has() {
        let (names, ids) = names();
        assert_eq!(names.find("bob2", &ids).unwrap(), Some(ids[2]));
        assert_eq!(names.find("new", &ids).unwrap(), Some(ids[3]));
        assert_eq!(names.find("carol", &ids).unwrap(), None);
        assert_eq!(names.find("bob", &ids[..2]).unwrap(), Some(ids[1]));
        let error = names.find("bob", &ids).unwrap_err().to_string();
        assert!(error.contains("bob1, bob2"), "{error}");
    }

    #[test]
    fn an_id_goes_before_a_name_that_looks_like_it() {
        let ids = [id("ann"), id("eve")];
        let mut names = Names::default();
        names.insert(ids[1], "ann");
        assert_eq!(names.find("ann", &ids).unwrap(), Some(ids[0]));
    }
}
