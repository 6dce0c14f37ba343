//! The states of a session and every transition between them (protocol: sessions).
//!
//! ```text
//!              accept                  close, FIN
//! Connecting ----------> Established ------------> Draining ---> (gone)
//!     |                       |                                    ^
//!     |  timeout, close       |  idle, unresponsive, replaced      |
//!     +-----------------------+------------------------------------+
//! ```
//!
//! A session that the peer opened begins as an entry of the half-open table and becomes
//! `Established` with the first datagram that carries the session id of our accept.

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SessionState {
    /// Our offer is out, no answer yet. Writes are queued.
    Connecting,
    /// Both ends know each other's session id.
    Established,
    /// FIN was sent or received; only FIN is answered until three probe timeouts have passed.
    Draining,
}

/// What can move a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transition {
    /// The peer's accept arrived.
    Accepted,
    /// The application closed, or FIN arrived.
    Close,
}

/// Holds the state; only [`StateCell::apply`] changes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StateCell(SessionState);

impl StateCell {
    /// A session we opened.
    pub(crate) fn connecting() -> Self {
        Self(SessionState::Connecting)
    }

    /// A session the peer opened and confirmed.
    pub(crate) fn established() -> Self {
        Self(SessionState::Established)
    }

    /// The present state.
    pub(crate) fn get(self) -> SessionState {
        self.0
    }

    /// Whether data may flow.
    pub(crate) fn is_established(self) -> bool {
        self.0 == SessionState::Established
    }

    /// Applies a transition; false when the state has no such transition (and stays).
    pub(crate) fn apply(&mut self, transition: Transition) -> bool {
        use SessionState::{Connecting, Draining, Established};
        let next = match (self.0, transition) {
            (Connecting, Transition::Accepted) => Established,
            (Established, Transition::Close) => Draining,
            (Connecting | Draining, Transition::Close)
            | (Established | Draining, Transition::Accepted) => return false,
        };
        self.0 = next;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_transition_is_listed() {
        let mut table = String::new();
        for state in [
            SessionState::Connecting,
            SessionState::Established,
            SessionState::Draining,
        ] {
            for transition in [Transition::Accepted, Transition::Close] {
                let mut cell = StateCell(state);
                let moved = cell.apply(transition);
                table.push_str(&format!(
                    "{state:?} {transition:?} {moved} {:?}\n",
                    cell.get()
                ));
            }
        }
        assert_eq!(
            table,
            "Connecting Accepted true Established\n\
             Connecting Close false Connecting\n\
             Established Accepted false Established\n\
             Established Close true Draining\n\
             Draining Accepted false Draining\n\
             Draining Close false Draining\n"
        );
    }
}
