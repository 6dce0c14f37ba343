//! Ctrl-C: once asks for an orderly end, twice ends at once.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

use crate::failure::{Exit, Failure, Outcome};

static ASKED: AtomicBool = AtomicBool::new(false);
static STOP: Notify = Notify::const_new();

/// Begins to listen for Ctrl-C and for the system's request to terminate.
pub(crate) fn listen() {
    tokio::spawn(async {
        loop {
            signalled().await;
            if ASKED.swap(true, Ordering::SeqCst) {
                std::process::exit(i32::from(Exit::Interrupted as u8));
            }
            STOP.notify_waiters();
        }
    });
}

async fn signalled() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let (Ok(mut terminate), Ok(mut hangup)) = (
            signal(SignalKind::terminate()),
            signal(SignalKind::hangup()),
        ) {
            tokio::select! {
                result = tokio::signal::ctrl_c() => if result.is_ok() { return },
                _ = terminate.recv() => return,
                _ = hangup.recv() => return,
            }
        }
    }
    if tokio::signal::ctrl_c().await.is_err() {
        // no such signal here: nobody can ask
        std::future::pending::<()>().await;
    }
}

/// Ends when the program is to end.
pub(crate) async fn asked() {
    loop {
        let notified = STOP.notified();
        tokio::pin!(notified);
        notified.as_mut().enable();
        if ASKED.load(Ordering::SeqCst) {
            return;
        }
        notified.await;
    }
}

/// Runs something until it is done or the program is to end.
///
/// # Errors
/// [`Exit::Interrupted`], or what it fails with.
pub(crate) async fn unless<T>(work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    tokio::select! {
        result = work => result,
        () = asked() => Err(Failure::interrupted()),
    }
}
