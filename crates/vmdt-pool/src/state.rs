//! The states of one share at its holder, and every transition between them.
//!
//! ```text
//!              unfreeze              claim
//!   FROZEN ---------------> ACTIVE ---------> CLAIMED
//!                              ^                 |
//!                              +-----------------+
//!                          release, end of the lease
//! ```
//!
//! Beside the state stands whether the share's octets are here: a share may be announced before it
//! comes. It is offered to its receiver whenever it comes to be ACTIVE and here. An ack, a remove
//! and expiry end the whole message in every state; they are not transitions of a share.

/// The state of one share at its holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ShareState {
    /// Kept back until the sender or the receiver unfreezes it.
    Frozen,
    /// To be pushed to the receiver, or claimed by it.
    Active,
    /// Leased to the receiver: on its way.
    Claimed,
}

/// What happens to a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Input {
    /// Its octets came.
    Arrive,
    /// The sender or the receiver wants it pushed.
    Unfreeze,
    /// The receiver takes it.
    Claim,
    /// The transfer to the receiver failed.
    Release,
    /// The lease ran out.
    LeaseEnd,
    /// The pause after a release is over.
    Retry,
    /// Its octets are gone: the store did not take them.
    Vanish,
}

/// What the pool has to do after a transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing.
    Nothing,
    /// Offer the share.
    Offer,
    /// Hand the share out and (re)start its lease.
    Grant,
    /// Offer the share after a pause.
    OfferLater,
    /// Offer the share, and count a lease that ended without an ack.
    Lapse,
    /// Refuse the claim: unfreeze first.
    RefuseFrozen,
    /// Refuse the claim: the octets are not here.
    RefuseMissing,
}

/// A share's state and whether its octets are here. Only [`Stage::step`] changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stage {
    state: ShareState,
    here: bool,
}

impl Stage {
    pub(crate) fn new(active: bool) -> Self {
        let state = if active {
            ShareState::Active
        } else {
            ShareState::Frozen
        };
        Stage { state, here: false }
    }

    pub(crate) fn state(self) -> ShareState {
        self.state
    }

    pub(crate) fn is_offerable(self) -> bool {
        self.here && self.state == ShareState::Active
    }

    #[must_use]
    pub(crate) fn step(self, input: Input) -> (Stage, Effect) {
        use Effect::*;
        use ShareState::*;
        let Stage { state, here } = self;
        let (state, here, effect) = match (state, here, input) {
            (Active, false, Input::Arrive) => (Active, true, Offer),
            (Frozen, false, Input::Arrive) => (Frozen, true, Nothing),
            (Frozen, true, Input::Unfreeze) => (Active, true, Offer),
            (Frozen, false, Input::Unfreeze) => (Active, false, Nothing),
            (Active, true, Input::Claim) => (Claimed, true, Grant),
            (Claimed, _, Input::Claim) => (Claimed, here, Grant),
            (Active, false, Input::Claim) => (Active, false, RefuseMissing),
            (Frozen, _, Input::Claim) => (Frozen, here, RefuseFrozen),
            (Claimed, _, Input::Release) => (Active, here, OfferLater),
            (Claimed, _, Input::LeaseEnd) => (Active, here, Lapse),
            (Active, true, Input::Retry) => (Active, true, Offer),
            (Frozen, true, Input::Vanish) => (Frozen, false, Nothing),
            (Active | Claimed, true, Input::Vanish) => (Active, false, Nothing),
            (
                state,
                here,
                Input::Arrive
                | Input::Unfreeze
                | Input::Release
                | Input::LeaseEnd
                | Input::Retry
                | Input::Vanish,
            ) => (state, here, Nothing),
        };
        (Stage { state, here }, effect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INPUTS: [Input; 7] = [
        Input::Arrive,
        Input::Unfreeze,
        Input::Claim,
        Input::Release,
        Input::LeaseEnd,
        Input::Retry,
        Input::Vanish,
    ];

    fn stages() -> Vec<Stage> {
        let mut stages = Vec::new();
        for state in [ShareState::Frozen, ShareState::Active, ShareState::Claimed] {
            for here in [false, true] {
                // A claimed share is always here: it cannot be claimed before it comes.
                if here || state != ShareState::Claimed {
                    stages.push(Stage { state, here });
                }
            }
        }
        stages
    }

    fn name(stage: Stage) -> String {
        format!("{:?}{}", stage.state, if stage.here { "" } else { "-" })
    }

    #[test]
    fn every_transition_is_as_documented() {
        let mut table = String::new();
        for stage in stages() {
            for input in INPUTS {
                let (next, effect) = stage.step(input);
                table.push_str(&format!(
                    "{:<8} {:<9} {:<8} {effect:?}\n",
                    name(stage),
                    format!("{input:?}"),
                    name(next)
                ));
            }
        }
        // A trailing `-`: the octets are not here.
        let expected = "\
Frozen-  Arrive    Frozen   Nothing
Frozen-  Unfreeze  Active-  Nothing
Frozen-  Claim     Frozen-  RefuseFrozen
Frozen-  Release   Frozen-  Nothing
Frozen-  LeaseEnd  Frozen-  Nothing
Frozen-  Retry     Frozen-  Nothing
Frozen-  Vanish    Frozen-  Nothing
Frozen   Arrive    Frozen   Nothing
Frozen   Unfreeze  Active   Offer
Frozen   Claim     Frozen   RefuseFrozen
Frozen   Release   Frozen   Nothing
Frozen   LeaseEnd  Frozen   Nothing
Frozen   Retry     Frozen   Nothing
Frozen   Vanish    Frozen-  Nothing
Active-  Arrive    Active   Offer
Active-  Unfreeze  Active-  Nothing
Active-  Claim     Active-  RefuseMissing
Active-  Release   Active-  Nothing
Active-  LeaseEnd  Active-  Nothing
Active-  Retry     Active-  Nothing
Active-  Vanish    Active-  Nothing
Active   Arrive    Active   Nothing
Active   Unfreeze  Active   Nothing
Active   Claim     Claimed  Grant
Active   Release   Active   Nothing
Active   LeaseEnd  Active   Nothing
Active   Retry     Active   Offer
Active   Vanish    Active-  Nothing
Claimed  Arrive    Claimed  Nothing
Claimed  Unfreeze  Claimed  Nothing
Claimed  Claim     Claimed  Grant
Claimed  Release   Active   OfferLater
Claimed  LeaseEnd  Active   Lapse
Claimed  Retry     Claimed  Nothing
Claimed  Vanish    Active-  Nothing
";
        assert_eq!(table, expected);
    }

    #[test]
    fn every_input_applied_twice_leads_where_it_led_once() {
        for stage in stages() {
            for input in INPUTS {
                let once = stage.step(input).0;
                assert_eq!(once.step(input).0, once, "{stage:?} {input:?}");
            }
        }
    }

    #[test]
    fn a_claimed_share_is_always_here() {
        for stage in stages() {
            for input in INPUTS {
                let next = stage.step(input).0;
                assert!(next.here || next.state != ShareState::Claimed);
            }
        }
    }
}
