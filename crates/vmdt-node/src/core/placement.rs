//! Placement: who carries which share of a message.
//!
//! The privacy rule (`docs/protocol.md`, section 6): no member, no link and no server ever carries
//! k or more shares of one message, but for the direct link when the message is sealed to its
//! receiver. A message needs k shares to be rebuilt, so it always takes at
//! least two carriers. The rule binds over the whole life of a message, also when shares move
//! because a holder was lost: a carrier that was given a share once has it for good.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU8;

use vmdt_wire::NodeId;

/// One party that can bring a share to the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Carrier {
    /// The link from the sender to the receiver.
    Direct,
    /// A member that holds the share and hands it on.
    Member(NodeId),
    /// The server, by relay.
    Server,
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Carrier::Direct => f.write_str("direct"),
            Carrier::Member(id) => write!(f, "via {id}"),
            Carrier::Server => f.write_str("via the server"),
        }
    }
}

/// Why a message can't be placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "only {placeable} of the {k} shares that are needed can be placed: {carriers} carrier(s) may \
     take at most {cap} each, so that nobody on the way can read the message"
)]
pub struct PlacementError {
    /// Shares that could be placed.
    pub placeable: usize,
    /// Shares that are needed.
    pub k: u8,
    /// Carriers there are: members that are up, the direct link, the server.
    pub carriers: usize,
    /// Shares one carrier may have, k - 1.
    pub cap: usize,
}

/// Where the shares of one message are, and who ever had how many.
#[derive(Debug, Clone)]
pub struct Placement {
    k: u8,
    given: BTreeMap<Carrier, usize>,
    at: BTreeMap<NonZeroU8, Carrier>,
}

/// The carriers to choose from, best first.
#[derive(Debug, Clone, Default)]
pub struct Carriers {
    /// Whether sender and receiver reach each other without the server.
    pub direct: bool,
    /// Members that are up, in the order of preference; neither sender nor receiver.
    pub members: Vec<NodeId>,
    /// Whether the server may relay.
    pub server: bool,
    /// Whether the content is sealed to the receiver, so that k shares alone open nothing. The
    /// direct link may carry all of them then; it is given k only when there is nobody else.
    pub sealed: bool,
}

impl Placement {
    /// Places n shares, one carrier after the other, so that the first k are on as many distinct
    /// carriers as there are. The server is used only where members and the direct link do not
    /// make k, and it takes only share indices below k, which is what it passes on.
    ///
    /// # Errors
    /// [`PlacementError`] when not even k shares can be placed within the rule.
    pub fn new(n: u8, k: u8, carriers: &Carriers) -> Result<Placement, PlacementError> {
        let cap = usize::from(k.saturating_sub(1));
        let mut plain: Vec<Carrier> = Vec::new();
        if carriers.direct {
            plain.push(Carrier::Direct);
        }
        plain.extend(carriers.members.iter().copied().map(Carrier::Member));
        let direct = usize::from(n) * usize::from(carriers.direct && carriers.sealed);
        let capacity = (plain.len() * cap).max(direct);
        let missing = usize::from(k).saturating_sub(capacity);
        let server = if carriers.server { missing.min(cap) } else { 0 };
        let placeable = capacity + server;
        if placeable < usize::from(k) {
            return Err(PlacementError {
                placeable,
                k,
                carriers: plain.len() + usize::from(carriers.server),
                cap,
            });
        }
        let mut placement = Placement {
            k,
            given: BTreeMap::new(),
            at: BTreeMap::new(),
        };
        let rounds = (0..cap).flat_map(|_| plain.iter().copied());
        let rest = std::iter::repeat_n(Carrier::Direct, direct);
        let order = std::iter::repeat_n(Carrier::Server, server)
            .chain(rounds)
            .chain(rest);
        for (index, carrier) in (1..=n).filter_map(NonZeroU8::new).zip(order) {
            placement.give(index, carrier);
        }
        Ok(placement)
    }

    fn give(&mut self, index: NonZeroU8, carrier: Carrier) {
        *self.given.entry(carrier).or_default() += 1;
        self.at.insert(index, carrier);
    }

    /// The carrier of a share, if it has one.
    pub fn carrier(&self, index: NonZeroU8) -> Option<Carrier> {
        self.at.get(&index).copied()
    }

    /// All shares that have a carrier, in the order of their index.
    pub fn iter(&self) -> impl Iterator<Item = (NonZeroU8, Carrier)> + '_ {
        self.at.iter().map(|(i, c)| (*i, *c))
    }

    /// How many shares a carrier was ever given.
    pub fn given(&self, carrier: Carrier) -> usize {
        self.given.get(&carrier).copied().unwrap_or(0)
    }

    /// Moves a share to a carrier that may still take one, the least used first; `None` when the
    /// rule leaves no room. What the old carrier had, it is taken to still have.
    pub fn relocate(&mut self, index: NonZeroU8, carriers: &Carriers) -> Option<Carrier> {
        let cap = |carrier: Carrier| match carrier {
            Carrier::Direct if carriers.sealed => usize::MAX,
            _ => usize::from(self.k.saturating_sub(1)),
        };
        let old = self.carrier(index);
        let mut options: Vec<Carrier> = Vec::new();
        options.extend(carriers.members.iter().copied().map(Carrier::Member));
        if carriers.direct {
            options.push(Carrier::Direct);
        }
        if carriers.server && index.get() < self.k {
            options.push(Carrier::Server);
        }
        let best = options
            .into_iter()
            .filter(|c| Some(*c) != old && self.given(*c) < cap(*c))
            .min_by_key(|c| (matches!(c, Carrier::Server), self.given(*c)))?;
        self.give(index, best);
        Some(best)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(n: usize) -> Vec<NodeId> {
        (0..n).map(|i| format!("m{i}").parse().unwrap()).collect()
    }

    fn check(p: &Placement, k: u8) {
        for count in p.given.values() {
            assert!(
                *count < usize::from(k),
                "a carrier has {count} of {k}: {p:?}"
            );
        }
    }

    #[test]
    fn no_carrier_ever_has_k_shares() {
        for n in 2..=9u8 {
            for k in 2..=n {
                for members in 0..=6 {
                    for (direct, server) in
                        [(false, false), (true, false), (false, true), (true, true)]
                    {
                        let mut c = Carriers {
                            direct,
                            members: ids(members),
                            server,
                            sealed: false,
                        };
                        let Ok(mut p) = Placement::new(n, k, &c) else {
                            continue;
                        };
                        check(&p, k);
                        assert!(p.iter().count() >= usize::from(k));
                        // lose every member one after the other and move what it had
                        while let Some(lost) = c.members.pop() {
                            let moved: Vec<_> = p
                                .iter()
                                .filter(|(_, c)| *c == Carrier::Member(lost))
                                .map(|(i, _)| i)
                                .collect();
                            for index in moved {
                                let _ = p.relocate(index, &c);
                                check(&p, k);
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn the_first_k_shares_take_distinct_carriers() {
        let p = Placement::new(
            5,
            3,
            &Carriers {
                direct: true,
                members: ids(3),
                server: true,
                sealed: false,
            },
        )
        .unwrap();
        let first: Vec<_> = p.iter().take(3).map(|(_, c)| c).collect();
        assert_eq!(
            first,
            [
                Carrier::Direct,
                Carrier::Member(ids(3)[0]),
                Carrier::Member(ids(3)[1])
            ]
        );
        assert_eq!(p.given(Carrier::Server), 0, "the server is not needed");
    }

    #[test]
    fn two_members_alone_need_the_server_and_neither_path_reads_it() {
        let alone = Carriers {
            direct: true,
            members: vec![],
            server: false,
            sealed: false,
        };
        assert_eq!(
            Placement::new(2, 2, &alone).unwrap_err(),
            PlacementError {
                placeable: 1,
                k: 2,
                carriers: 1,
                cap: 1
            }
        );
        let p = Placement::new(
            2,
            2,
            &Carriers {
                server: true,
                ..alone
            },
        )
        .unwrap();
        assert_eq!(
            p.iter().map(|(i, c)| (i.get(), c)).collect::<Vec<_>>(),
            [(1, Carrier::Server), (2, Carrier::Direct)]
        );
    }

    #[test]
    fn the_server_takes_only_indices_below_k() {
        for k in 2..=6u8 {
            let c = Carriers {
                direct: true,
                members: vec![],
                server: true,
                sealed: false,
            };
            let p = Placement::new(k, k, &c).unwrap();
            for (index, carrier) in p.iter() {
                assert!(carrier != Carrier::Server || index.get() < k);
            }
        }
    }

    #[test]
    fn a_sealed_message_may_go_all_by_the_direct_link_and_members_still_get_less_than_k() {
        for n in 2..=9u8 {
            for k in 2..=n {
                for members in 0..=4 {
                    let c = Carriers {
                        direct: true,
                        members: ids(members),
                        server: true,
                        sealed: true,
                    };
                    let mut p = Placement::new(n, k, &c).unwrap();
                    assert_eq!(p.iter().count(), usize::from(n), "every share has a place");
                    assert_eq!(p.given(Carrier::Server), 0, "the server is not needed");
                    // every member is lost
                    let alone = Carriers {
                        members: vec![],
                        ..c
                    };
                    let moved: Vec<_> = p.iter().filter(|(_, c)| *c != Carrier::Direct).collect();
                    for (index, _) in moved {
                        assert_eq!(p.relocate(index, &alone), Some(Carrier::Direct));
                    }
                    for (carrier, count) in &p.given {
                        assert!(*carrier == Carrier::Direct || *count < usize::from(k));
                    }
                }
            }
        }
    }

    #[test]
    fn a_lost_holders_share_moves_or_stays_lost() {
        let c = Carriers {
            direct: true,
            members: ids(1),
            server: false,
            sealed: false,
        };
        let mut p = Placement::new(3, 2, &c).unwrap();
        assert_eq!(p.iter().count(), 2);
        let none = Carriers {
            direct: true,
            members: vec![],
            server: false,
            sealed: false,
        };
        let at_member = p.iter().find(|(_, c)| *c != Carrier::Direct).unwrap().0;
        assert_eq!(
            p.relocate(at_member, &none),
            None,
            "the direct link has its one share"
        );
    }
}
