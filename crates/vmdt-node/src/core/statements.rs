//! Statements that wait to be signed, by whom they are for: one signature stands for many of them,
//! and nobody is signed for more than five times a second.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use vmdt_wire::NodeId;

/// The least time between two signatures for one node.
pub(crate) const INTERVAL: Duration = Duration::from_millis(200);
/// How long a statement waits at least: what it is about goes first.
const DELAY: Duration = Duration::from_millis(20);
/// How long statements wait for a node that can't be reached; then they are dropped.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Statements that wait for one node. From half of it on they are signed at once; beyond it one is
/// dropped for each that comes.
pub(crate) const MAX_PENDING: usize = 1024;
/// Nodes for whom statements wait.
pub(crate) const MAX_NODES: usize = 1024;

/// What waits to be signed for one node.
#[derive(Debug)]
struct Pending<T> {
    statements: BTreeSet<T>,
    /// Since when the oldest waits.
    since: Instant,
    /// Not to be signed before.
    due: Instant,
}

/// Statements of one kind.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    by_node: BTreeMap<NodeId, Pending<T>>,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Queue {
            by_node: BTreeMap::new(),
        }
    }
}

impl<T: Ord> Queue<T> {
    pub(crate) fn note(&mut self, now: Instant, to: NodeId, statement: T) {
        if self.by_node.len() >= MAX_NODES && !self.by_node.contains_key(&to) {
            return;
        }
        let pending = self.by_node.entry(to).or_insert_with(|| Pending {
            statements: BTreeSet::new(),
            since: now,
            due: now + DELAY,
        });
        if pending.statements.is_empty() {
            pending.since = now;
            pending.due = pending.due.max(now + DELAY);
        }
        pending.statements.insert(statement);
        if pending.statements.len() >= MAX_PENDING / 2 {
            pending.due = now;
        }
        if pending.statements.len() > MAX_PENDING {
            pending.statements.pop_first();
        }
    }

    /// When something is to be signed, or forgotten.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.by_node.values().map(|pending| pending.due).min()
    }

    /// Takes out what is due, up to `most` statements at once; `all`: what is not due, too.
    /// `reaches` says whether a node can be told now.
    pub(crate) fn take_due(
        &mut self,
        now: Instant,
        all: bool,
        most: usize,
        reaches: impl Fn(NodeId) -> bool,
    ) -> Vec<(NodeId, Vec<T>)> {
        let mut out = Vec::new();
        self.by_node.retain(|node, pending| {
            if !all && pending.due > now {
                return true;
            }
            if pending.statements.is_empty() {
                // it was kept for the time of its last signature
                return false;
            }
            if !reaches(*node) {
                pending.due = now + INTERVAL;
                return now.saturating_duration_since(pending.since) < PATIENCE;
            }
            while !pending.statements.is_empty() {
                let mut batch = Vec::with_capacity(most);
                while batch.len() < most
                    && let Some(statement) = pending.statements.pop_first()
                {
                    batch.push(statement);
                }
                out.push((*node, batch));
            }
            pending.due = now + INTERVAL;
            true
        });
        out
    }
}

#[cfg(test)]
impl<T> Queue<T> {
    /// For how many nodes something waits, or was signed lately.
    pub(crate) fn nodes(&self) -> usize {
        self.by_node.len()
    }

    /// How many statements wait for a node.
    pub(crate) fn waiting(&self, node: NodeId) -> usize {
        let pending = self.by_node.get(&node);
        pending.map_or(0, |pending| pending.statements.len())
    }
}
