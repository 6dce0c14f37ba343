//! Spoken codes: two people who share nothing but `7-word-word` exchange a few octets, such as a
//! ticket, through a server that learns neither the words nor the octets.
//!
//! The server pairs two connections by the number. What they pass each other is, each with one
//! octet for its kind in front: the joiner's first message of the PAKE (1), the opener's (1), the
//! joiner's confirmation (2), and only when that is right the opener's (2) and what it has to give,
//! sealed (3). A wrong guess ends the code, whoever made it.

use std::time::Duration;

use bytes::Bytes;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use tokio::sync::mpsc;
use vmdt_control::{Reply, Request};
use vmdt_seal::code::{Code, CodeError, Pake, Role};
use zeroize::Zeroizing;

use crate::driver::Command;
use crate::handle::{Node, NodeError};

/// What can be exchanged under a code, in octets.
pub const CODE_MAX_LEN: usize = 4_000;
/// How long one side waits for the other's next message, once both are there.
const PATIENCE: Duration = Duration::from_secs(30);

const FIRST: u8 = 1;
const CONFIRMATION: u8 = 2;
const CONTENT: u8 = 3;

/// A code that was made and waits for who was told it. Dropping it makes the code void.
#[derive(Debug)]
pub struct CodeOffer {
    node: Node,
    code: Code,
    arrivals: mpsc::UnboundedReceiver<Option<Bytes>>,
    open: bool,
}

/// The other side of a code number, as one end sees it.
struct Line<'a> {
    node: &'a Node,
    number: u16,
    arrivals: &'a mut mpsc::UnboundedReceiver<Option<Bytes>>,
}

impl Line<'_> {
    async fn send(&self, kind: u8, octets: &[u8]) -> Result<(), NodeError> {
        let mut data = Vec::with_capacity(1 + octets.len());
        data.push(kind);
        data.extend_from_slice(octets);
        let request = Request::CodePass {
            number: self.number,
            data: data.into(),
        };
        let reply = self.node.ask("passing on a message under a code", request);
        reply.await.map(drop)
    }

    /// The other side's next message, which must be of this kind.
    async fn next(&mut self, kind: u8) -> Result<Bytes, NodeError> {
        let mut data = match self.arrivals.recv().await {
            Some(Some(data)) => data,
            Some(None) => return Err(NodeError::Code(CodeFailure::Void)),
            None => return Err(NodeError::Closed),
        };
        let found = (!data.is_empty()).then(|| data.split_to(1));
        if found.as_deref() == Some(&[kind]) {
            Ok(data)
        } else {
            Err(CodeFailure::Exchange(CodeError::Malformed).into())
        }
    }

    async fn soon(&mut self, kind: u8) -> Result<Bytes, NodeError> {
        tokio::time::timeout(PATIENCE, self.next(kind))
            .await
            .unwrap_or(Err(NodeError::Code(CodeFailure::Silent)))
    }
}

/// Why an exchange under a code failed. The code is void then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodeFailure {
    /// The words were wrong, or what came is not part of the exchange.
    #[error(transparent)]
    Exchange(#[from] CodeError),
    /// The number is not valid any more: the time is up, or somebody guessed wrong.
    #[error("the code is not valid any more; ask for a new one")]
    Void,
    /// The other side stopped answering.
    #[error("the other side stopped answering; ask for a new code")]
    Silent,
    /// More than [`CODE_MAX_LEN`] octets.
    #[error("{found} octets are more than the {CODE_MAX_LEN} that a code can carry")]
    TooLong {
        /// How many were given.
        found: usize,
    },
}

impl From<CodeFailure> for NodeError {
    fn from(failure: CodeFailure) -> NodeError {
        NodeError::Code(failure)
    }
}

fn rng() -> Result<ChaCha20Rng, NodeError> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *seed).map_err(NodeError::Randomness)?;
    Ok(ChaCha20Rng::from_seed(*seed))
}

impl CodeOffer {
    /// What to tell the other person.
    #[must_use]
    pub fn code(&self) -> &Code {
        &self.code
    }

    /// Waits for who was told the code, and gives it `octets`. One wrong guess ends the code.
    ///
    /// # Errors
    /// [`NodeError::Code`]; [`NodeError::Request`] when the server can't be asked.
    ///
    /// # Cancel safety
    /// Not cancel safe: dropping the future makes the code void.
    pub async fn give(mut self, octets: &[u8]) -> Result<(), NodeError> {
        if octets.len() > CODE_MAX_LEN {
            let found = octets.len();
            return Err(CodeFailure::TooLong { found }.into());
        }
        let mut line = Line {
            node: &self.node,
            number: self.code.number(),
            arrivals: &mut self.arrivals,
        };
        // this may take as long as people do
        let theirs = line.next(FIRST).await?;
        let (pake, first) = Pake::start(Role::Opener, &self.code, &mut rng()?);
        line.send(FIRST, &first).await?;
        let (confirming, second) = pake.finish(&theirs).map_err(CodeFailure::from)?;
        let theirs = line.soon(CONFIRMATION).await?;
        let mut channel = confirming.confirm(&theirs).map_err(CodeFailure::from)?;
        let sealed = channel.seal(octets).map_err(CodeFailure::from)?;
        line.send(CONFIRMATION, &second).await?;
        line.send(CONTENT, &sealed).await?;
        // the other side closes the number when it has read it all
        let _ = tokio::time::timeout(PATIENCE, line.arrivals.recv()).await;
        Ok(())
    }
}

impl Drop for CodeOffer {
    fn drop(&mut self) {
        if self.open {
            self.node.tell(Command::CodeClose(self.code.number()));
        }
    }
}

impl Node {
    /// Makes a code for another person who uses the same server: see [`CodeOffer`]. It is void
    /// after 10 minutes. In profile 1.1.
    ///
    /// # Errors
    /// [`NodeError::Request`] with the server's answer, or why it could not be asked.
    ///
    /// # Cancel safety
    /// When the future is dropped a number may stay taken at the server for 10 minutes.
    pub async fn offer_code(&self) -> Result<CodeOffer, NodeError> {
        self.offer(None).await
    }

    /// As [`offer_code`](Self::offer_code), for somebody who was told `earlier` by a run that
    /// ended: its words are kept if the server gives out its number again, which it does when no
    /// other is free below it. Otherwise the code is a new one. Each offer allows one guess.
    ///
    /// # Errors
    /// As for [`offer_code`](Self::offer_code).
    ///
    /// # Cancel safety
    /// As for [`offer_code`](Self::offer_code).
    pub async fn offer_code_again(&self, earlier: &Code) -> Result<CodeOffer, NodeError> {
        self.offer(Some(earlier)).await
    }

    async fn offer(&self, earlier: Option<&Code>) -> Result<CodeOffer, NodeError> {
        let what = "asking for a code";
        let Reply::Code { number } = self.ask(what, Request::CodeOpen).await? else {
            return Err(NodeError::UnexpectedReply { what });
        };
        let arrivals = self.listen(number).await?;
        let code = match earlier {
            Some(earlier) if earlier.number() == number => earlier.clone(),
            _ => Code::generate(number, &mut rng()?).map_err(CodeFailure::from)?,
        };
        Ok(CodeOffer {
            node: self.clone(),
            code,
            arrivals,
            open: true,
        })
    }

    /// Takes what the maker of a code has to give. A wrong code can't be tried again: the other
    /// person makes a new one.
    ///
    /// # Errors
    /// [`NodeError::Code`]; [`NodeError::Request`] when the server does not know the number, or
    /// can't be asked.
    ///
    /// # Cancel safety
    /// Not cancel safe: dropping the future makes the code void.
    pub async fn redeem_code(&self, code: &Code) -> Result<Zeroizing<Vec<u8>>, NodeError> {
        let number = code.number();
        let mut arrivals = self.listen(number).await?;
        self.ask("joining a code", Request::CodeJoin(number))
            .await?;
        let mut line = Line {
            node: self,
            number,
            arrivals: &mut arrivals,
        };
        let result = redeem(&mut line, code).await;
        self.tell(Command::CodeClose(number));
        result
    }

    /// What arrives under a code number from now on.
    async fn listen(
        &self,
        number: u16,
    ) -> Result<mpsc::UnboundedReceiver<Option<Bytes>>, NodeError> {
        let (sender, arrivals) = mpsc::unbounded_channel();
        self.command(Command::CodeListen(number, sender)).await?;
        Ok(arrivals)
    }
}

async fn redeem(line: &mut Line<'_>, code: &Code) -> Result<Zeroizing<Vec<u8>>, NodeError> {
    let (pake, first) = Pake::start(Role::Joiner, code, &mut rng()?);
    line.send(FIRST, &first).await?;
    let theirs = line.soon(FIRST).await?;
    let (confirming, second) = pake.finish(&theirs).map_err(CodeFailure::from)?;
    line.send(CONFIRMATION, &second).await?;
    let theirs = match line.soon(CONFIRMATION).await {
        // the opener ends the code when our words were wrong
        Err(NodeError::Code(CodeFailure::Void)) => {
            return Err(CodeFailure::Exchange(CodeError::WrongCode).into());
        }
        other => other?,
    };
    let mut channel = confirming.confirm(&theirs).map_err(CodeFailure::from)?;
    let sealed = line.soon(CONTENT).await?;
    Ok(channel.open(&sealed).map_err(CodeFailure::from)?)
}
