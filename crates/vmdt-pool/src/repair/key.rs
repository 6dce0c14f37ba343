//! A new point of a key, made by k holders without putting the key together.
//!
//! Each [`Helper`] cuts its summand of the interpolation at the new index into k random parts and
//! sends one to each helper; each sums what it received and sends the sum to the [`NewHolder`],
//! whose point is the sum of the sums (`vmdt-ssms`, module `shamir`). Everything that anybody
//! receives on the way is random.
//!
//! Both machines assume sealed sessions between the nodes, and helpers that follow the protocol: one
//! that lies spoils the point, which shows, as the share does not match its digest. The next
//! attempt, with another number and another set of helpers, begins from nothing.
//!
//! A message is 39 octets: format (1), kind (1 part, 2 sum), attempt (u32, big-endian), the index of
//! the helper that it is from, 32 octets of a point. Which message and which share it is about is
//! said by what carries it.

use core::fmt;
use core::num::NonZeroU8;
use std::collections::BTreeMap;

use bytes::Bytes;
use rand_core::CryptoRng;
use vmdt_ssms::shamir::{CombineError, KeyShare, contribution, summed};
use vmdt_wire::NodeId;

use super::Task;
use crate::announcement::Announcement;

const FORMAT: u8 = 1;
const PART: u8 = 1;
const SUM: u8 = 2;
/// Octets of a message.
const LEN: usize = 39;

/// Why an exchange does not begin or a message is refused. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExchangeError {
    /// The announcement does not say what the task says: its sender has not placed the share there,
    /// or has moved those of the helpers.
    #[error("share {index} is not announced at {holder}")]
    NotAnnounced {
        /// The share.
        index: NonZeroU8,
        /// Who was to hold it.
        holder: NodeId,
    },
    /// Not as many helpers as the threshold.
    #[error("{found} helpers are named, {needed} are needed")]
    Helpers {
        /// Helpers named.
        found: usize,
        /// The threshold, k.
        needed: u8,
    },
    /// The indices do not make a new point.
    #[error(transparent)]
    Points(#[from] CombineError),
    /// A message that is not one of ours.
    #[error("a message of {found} octets is none of this exchange")]
    Malformed {
        /// Its length.
        found: usize,
    },
    /// A message of another attempt.
    #[error("the message is of attempt {found}, this is attempt {attempt}")]
    Attempt {
        /// Its attempt.
        found: u32,
        /// The attempt under way.
        attempt: u32,
    },
    /// The sender of the message is not the helper that it speaks for.
    #[error("{from} does not help with share {index}")]
    NotHelper {
        /// Who sent it.
        from: NodeId,
        /// The share that it named.
        index: NonZeroU8,
    },
    /// A helper said two different things.
    #[error("{from} sent two different messages for share {index}")]
    Contradiction {
        /// Who sent them.
        from: NodeId,
        /// Its share.
        index: NonZeroU8,
    },
}

/// A message of the exchange. Its octets are secret: they go over a sealed session.
#[derive(Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Whom it is for; may be this node itself.
    pub to: NodeId,
    /// For a helper, the index of its share; for the new holder, the index that is made.
    pub index: NonZeroU8,
    /// The octets.
    pub octets: Bytes,
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing")
            .field("to", &self.to)
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

fn write(kind: u8, attempt: u32, from: NonZeroU8, share: &KeyShare) -> Bytes {
    let mut octets = Vec::with_capacity(LEN);
    octets.extend([FORMAT, kind]);
    octets.extend(attempt.to_be_bytes());
    octets.push(from.get());
    octets.extend(share.value());
    Bytes::from(octets)
}

/// Messages of one kind from every helper of a task.
#[derive(Debug)]
struct Inbox {
    kind: u8,
    attempt: u32,
    /// The index that what comes is summed for.
    own: NonZeroU8,
    helpers: BTreeMap<NonZeroU8, NodeId>,
    received: BTreeMap<NonZeroU8, KeyShare>,
}

impl Inbox {
    fn new(
        kind: u8,
        attempt: u32,
        own: NonZeroU8,
        task: &Task,
        announcement: &Announcement,
    ) -> Result<Inbox, ExchangeError> {
        let named = task.helpers.iter().copied();
        for (index, holder) in named.chain([(task.index, task.to)]) {
            let placed = announcement.placement(index);
            let announced = announcement.message == task.message
                && placed.is_some_and(|share| share.holder == holder);
            if !announced {
                return Err(ExchangeError::NotAnnounced { index, holder });
            }
        }
        let helpers: BTreeMap<_, _> = task.helpers.iter().copied().collect();
        if helpers.len() != usize::from(announcement.k) || helpers.len() != task.helpers.len() {
            return Err(ExchangeError::Helpers {
                found: helpers.len(),
                needed: announcement.k,
            });
        }
        if helpers.contains_key(&task.index) {
            return Err(CombineError::Duplicate { index: task.index }.into());
        }
        Ok(Inbox {
            kind,
            attempt,
            own,
            helpers,
            received: BTreeMap::new(),
        })
    }

    /// Takes a message in. Returns whether the last one that was missing is here.
    fn take(&mut self, from: NodeId, octets: &[u8]) -> Result<bool, ExchangeError> {
        let malformed = ExchangeError::Malformed {
            found: octets.len(),
        };
        let (&[format, kind], rest) = octets.split_first_chunk().ok_or(malformed)?;
        let (attempt, rest) = rest.split_first_chunk::<4>().ok_or(malformed)?;
        let (&index, value) = rest.split_first().ok_or(malformed)?;
        let index = NonZeroU8::new(index).ok_or(malformed)?;
        let value: &[u8; 32] = value.try_into().map_err(|_| malformed)?;
        if format != FORMAT || kind != self.kind {
            return Err(malformed);
        }
        let found = u32::from_be_bytes(*attempt);
        if found != self.attempt {
            return Err(ExchangeError::Attempt {
                found,
                attempt: self.attempt,
            });
        }
        if self.helpers.get(&index) != Some(&from) {
            return Err(ExchangeError::NotHelper { from, index });
        }
        if let Some(known) = self.received.get(&index) {
            if known.value() != value {
                return Err(ExchangeError::Contradiction { from, index });
            }
            return Ok(false);
        }
        self.received.insert(index, KeyShare::new(self.own, value));
        Ok(self.received.len() == self.helpers.len())
    }

    fn sum(&mut self) -> KeyShare {
        let parts: Vec<KeyShare> = core::mem::take(&mut self.received).into_values().collect();
        summed(self.own, &parts)
    }
}

/// One of k holders that make a point for a new one.
#[derive(Debug)]
pub struct Helper {
    inbox: Inbox,
    index: NonZeroU8,
    to: NodeId,
    done: bool,
}

impl Helper {
    /// Begins to help with the point `share`. `announcement` is the one in force here: it says that
    /// the message's sender wants the new holder, so that nobody else gets a point out of its
    /// holders. `attempt` is a number that the task has not had before.
    ///
    /// Returns the messages to send, one for each helper, this one included.
    ///
    /// # Errors
    ///
    /// The task is not as announced, or `share` is not a helper's.
    pub fn begin(
        task: &Task,
        attempt: u32,
        announcement: &Announcement,
        share: &KeyShare,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<(Helper, Vec<Outgoing>), ExchangeError> {
        let inbox = Inbox::new(PART, attempt, share.index(), task, announcement)?;
        let indices: Vec<NonZeroU8> = inbox.helpers.keys().copied().collect();
        let parts = contribution(share, &indices, task.index, rng)?;
        let messages = parts
            .iter()
            .filter_map(|part| {
                Some(Outgoing {
                    to: *inbox.helpers.get(&part.index())?,
                    index: part.index(),
                    octets: write(PART, attempt, share.index(), part),
                })
            })
            .collect();
        let helper = Helper {
            index: task.index,
            to: task.to,
            inbox,
            done: false,
        };
        Ok((helper, messages))
    }

    /// Takes the part of another helper, or its own. With the last one it returns the message for
    /// the new holder.
    ///
    /// # Errors
    ///
    /// [`ExchangeError`]: the message is refused.
    pub fn receive(
        &mut self,
        from: NodeId,
        octets: &[u8],
    ) -> Result<Option<Outgoing>, ExchangeError> {
        if self.done || !self.inbox.take(from, octets)? {
            return Ok(None);
        }
        self.done = true;
        let sum = self.inbox.sum();
        Ok(Some(Outgoing {
            to: self.to,
            index: self.index,
            octets: write(SUM, self.inbox.attempt, self.inbox.own, &sum),
        }))
    }
}

/// The holder that gets the point.
#[derive(Debug)]
pub struct NewHolder {
    inbox: Inbox,
    done: bool,
}

impl NewHolder {
    /// Begins to wait for the sums of the helpers.
    ///
    /// # Errors
    ///
    /// The task is not as announced.
    pub fn begin(
        task: &Task,
        attempt: u32,
        announcement: &Announcement,
    ) -> Result<NewHolder, ExchangeError> {
        let inbox = Inbox::new(SUM, attempt, task.index, task, announcement)?;
        Ok(NewHolder { inbox, done: false })
    }

    /// Takes the sum of a helper. With the last one it returns the point. Put the share together and
    /// compare its digest with the announced one: if they differ, a helper lied.
    ///
    /// # Errors
    ///
    /// [`ExchangeError`]: the message is refused.
    pub fn receive(
        &mut self,
        from: NodeId,
        octets: &[u8],
    ) -> Result<Option<KeyShare>, ExchangeError> {
        if self.done || !self.inbox.take(from, octets)? {
            return Ok(None);
        }
        self.done = true;
        Ok(Some(self.inbox.sum()))
    }
}
