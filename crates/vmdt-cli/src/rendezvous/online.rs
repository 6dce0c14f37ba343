//! A code that is good across networks: the server of both sides pairs who names its number, and
//! learns neither the words nor what is passed.
//!
//! The server gives out the number, so the code is its: whenever it is used up there, too old or
//! guessed at, another one takes its place, on the local network, too.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{sleep, timeout_at};
use vmdt_node::{CodeFailure, CodeOffer, Node, NodeError};
use vmdt_seal::code::{Code, CodeError};

use super::opener::{Nearby, Opened, Shared, Why};
use crate::failure::{Exit, Failure, Outcome};
use crate::net::link::{Link, Membership, NodeSettings};
use crate::net::who::Who;

/// How long the server is left alone after a refusal.
const PAUSE: Duration = Duration::from_secs(2);

/// Where codes are offered besides the local network.
#[derive(Debug, Clone)]
pub(crate) struct Online {
    /// A node that is registered with the server.
    pub(crate) node: Node,
    /// Whether others may come when a code was used.
    pub(crate) again: bool,
}

/// Offers codes until nobody listens any more, or too many were guessed at. `nearby` tells what
/// becomes of the code on the local network.
pub(super) async fn offer(
    online: Online,
    mut offer: CodeOffer,
    mut nearby: mpsc::Receiver<Nearby>,
    shared: Arc<Shared>,
    report: mpsc::Sender<Opened>,
) {
    let mut held = None;
    loop {
        if held.is_none() {
            held = shared.invitation().await;
        }
        let Some(invitation) = held.take() else {
            return;
        };
        let why = {
            let giving = offer.give(&invitation);
            tokio::pin!(giving);
            loop {
                tokio::select! {
                    given = &mut giving => break match given {
                        Ok(()) => {
                            if report.send(Opened::Redeemed(None)).await.is_err() {
                                return;
                            }
                            Why::Used
                        }
                        Err(NodeError::Code(CodeFailure::Exchange(_))) => Why::WrongGuess(None),
                        Err(_) => Why::Old,
                    },
                    near = nearby.recv() => match near {
                        None => return,
                        Some(Nearby::WrongGuess(by)) => break Why::WrongGuess(Some(by)),
                        Some(Nearby::Used) if online.again => {}
                        // nobody else is to come
                        Some(Nearby::Used) => break Why::Used,
                    },
                }
            }
        };
        let why = match why {
            // the one that came comes back by the same code nearby, and by what it keeps elsewhere
            Why::Used if !online.again => loop {
                match nearby.recv().await {
                    None => return,
                    Some(Nearby::WrongGuess(by)) => break Why::WrongGuess(Some(by)),
                    Some(Nearby::Used) => {}
                }
            },
            Why::Used => Why::Used,
            why => {
                held = Some(invitation);
                why
            }
        };
        shared.show(None);
        // those nearby are counted there
        if why == Why::WrongGuess(None) && shared.is_last_wrong_guess() {
            let _ = report.send(Opened::Closed).await;
            return;
        }
        offer = loop {
            match online.node.offer_code().await {
                Ok(offer) => break offer,
                Err(NodeError::Closed) => return,
                Err(_) => sleep(PAUSE).await,
            }
        };
        let key = shared.show(Some(offer.code().clone()));
        let renewed = key.map(|key| Opened::Renewed { why, key });
        if let Some(renewed) = renewed
            && report.send(renewed).await.is_err()
        {
            return;
        }
    }
}

/// Takes what is given under a code at the servers, as soon as somebody offers it there.
///
/// # Errors
/// [`Exit::NotFound`] when nobody does in time or no server can be used, [`Exit::WrongCode`] when
/// the words are wrong.
pub(crate) async fn redeem(
    code: &Code,
    mut node: NodeSettings,
    wait: Duration,
) -> Outcome<Vec<u8>> {
    let deadline = crate::clock::now() + wait;
    node.who = Who::Passing;
    let link = Link::open(&node, &Membership::None).await?;
    let result = loop {
        match link.node.redeem_code(code).await {
            Ok(octets) => break Ok(octets.to_vec()),
            Err(NodeError::Code(CodeFailure::Exchange(CodeError::WrongCode))) => {
                break Err(super::joiner::wrong_code());
            }
            // the number is not known there, or not any more
            Err(error) => {
                let pause = timeout_at(deadline.into(), sleep(PAUSE));
                if pause.await.is_err() {
                    break Err(Failure::new(
                        Exit::NotFound,
                        format!(
                            "nobody shows a code with the number {} at the server ({error})",
                            code.number()
                        ),
                    )
                    .hint("is the sender running, with the same server, and is the code right?"));
                }
            }
        }
    };
    link.close().await;
    result
}
