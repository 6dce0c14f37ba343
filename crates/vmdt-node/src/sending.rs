//! A transfer under way, as its sender holds it.

use tokio::sync::{mpsc, oneshot, watch};
use vmdt_wire::MessageId;

use crate::core::{Progress, Receipt, TransferError};
use crate::driver::{Command, Started};

/// A transfer under way. Dropping it does not stop it; [`cancel`](Self::cancel) does.
#[derive(Debug)]
pub struct Sending {
    id: MessageId,
    progress: watch::Receiver<Progress>,
    done: Option<oneshot::Receiver<Result<Receipt, TransferError>>>,
    commands: mpsc::Sender<Command>,
}

impl Sending {
    pub(crate) fn new(started: Started, commands: mpsc::Sender<Command>) -> Sending {
        Sending {
            id: started.id,
            progress: started.progress,
            done: Some(started.done),
            commands,
        }
    }

    /// The transfer's id; the receiver's events bear it too.
    #[must_use]
    pub fn id(&self) -> MessageId {
        self.id
    }

    /// How far it is, as it goes.
    #[must_use]
    pub fn progress(&self) -> ProgressStream {
        ProgressStream {
            progress: self.progress.clone(),
        }
    }

    /// Waits until the receiver has everything: a message in its application's hands, a file
    /// whole and under its final name.
    ///
    /// # Errors
    /// [`TransferError`] with what went wrong.
    ///
    /// # Cancel safety
    /// Cancel safe; call it again.
    pub async fn delivered(&mut self) -> Result<Receipt, TransferError> {
        match &mut self.done {
            None => Err(TransferError::Closed),
            Some(done) => {
                let result = done.await.unwrap_or(Err(TransferError::Closed));
                self.done = None;
                result
            }
        }
    }

    /// Takes the transfer back; [`delivered`](Self::delivered) then gives
    /// [`TransferError::Cancelled`], unless it was too late.
    ///
    /// # Cancel safety
    /// When the future is dropped the transfer may go on.
    pub async fn cancel(&self) {
        let _ = self.commands.send(Command::Cancel(self.id)).await;
    }
}

/// How far a transfer is, as it goes.
#[derive(Debug, Clone)]
pub struct ProgressStream {
    progress: watch::Receiver<Progress>,
}

impl ProgressStream {
    /// How far it is now, or was when it ended.
    #[must_use]
    pub fn latest(&self) -> Progress {
        self.progress.borrow().clone()
    }

    /// The state after the next change, skipping those that were missed; `None` when the
    /// transfer has ended.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn next(&mut self) -> Option<Progress> {
        self.progress.changed().await.ok()?;
        Some(self.progress.borrow_and_update().clone())
    }
}
