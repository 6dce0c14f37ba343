//! Transfers of a chat, as a full screen shows them.

use std::path::Path;

use vmdt_node::{Event, Paths, Receipt};

use crate::failure::Outcome;
use crate::net::Peer;
use crate::net::link::{Messenger, by_name, transfer_failure};
use crate::text::printable;
use crate::tui::Shown;
use crate::tui::view::{Going, TransferRow};

/// Sends a file and shows how far it is.
///
/// # Errors
/// When it can't be read, or does not arrive.
pub(super) async fn send(
    messenger: &Messenger,
    to: Peer,
    path: &str,
    shown: Option<&Shown>,
) -> Outcome<Receipt> {
    let mut sending = messenger.begin_file(to, Path::new(path)).await?;
    let Some(shown) = shown else {
        return sending.delivered().await.map_err(|e| transfer_failure(&e));
    };
    let id = sending.id().to_string();
    let name = Path::new(path).file_name().unwrap_or_default();
    let name = printable(&name.to_string_lossy());
    let show = |done: Option<(u64, Option<u64>)>, paths: Option<&Paths>, going: Going| {
        shown.update(|board| {
            board.transfer(
                id.clone(),
                || row(name.clone(), false),
                |row| {
                    if let Some((done, total)) = done {
                        (row.done, row.total) = (done, total);
                    }
                    if let Some(paths) = paths {
                        row.carriers = shares(paths);
                    }
                    row.going = going;
                },
            );
        });
    };
    show(None, None, Going::On);
    let mut progress = sending.progress();
    let mut more = true;
    let delivered = loop {
        tokio::select! {
            delivered = sending.delivered() => break delivered,
            next = progress.next(), if more => match next {
                Some(next) => show(Some((next.delivered, next.total)), Some(&next.paths), Going::On),
                None => more = false,
            },
        }
    };
    match &delivered {
        Ok(receipt) => show(None, Some(receipt.paths()), Going::Done),
        Err(_) => show(None, None, Going::Failed),
    }
    delivered.map_err(|e| transfer_failure(&e))
}

/// Shows what an event tells of a file that arrives.
pub(super) fn arrives(shown: &Shown, event: &Event) {
    let change = |id: String, name: Option<String>, change: &dyn Fn(&mut TransferRow)| {
        shown.update(|board| {
            let new = || row(name.unwrap_or_default(), true);
            board.transfer(id, new, change);
        });
    };
    match event {
        Event::FileStarted { id, name, size, .. } => {
            change(id.to_string(), Some(printable(name)), &|row| {
                row.total = *size
            });
        }
        Event::FileProgress { id, received, size } => change(id.to_string(), None, &|row| {
            (row.done, row.total) = (*received, *size);
        }),
        Event::FileReceived {
            id, path, paths, ..
        } => {
            let name = printable(&path.file_name().unwrap_or_default().to_string_lossy());
            change(id.to_string(), Some(name), &|row| {
                row.going = Going::Done;
                row.carriers = shares(paths);
            });
        }
        Event::ReceiveFailed { id, .. } => {
            change(id.to_string(), None, &|row| row.going = Going::Failed);
        }
        _ => {}
    }
}

fn row(name: String, incoming: bool) -> TransferRow {
    TransferRow {
        name,
        incoming,
        done: 0,
        total: None,
        going: Going::On,
        carriers: Default::default(),
    }
}

fn shares(paths: &Paths) -> std::collections::BTreeMap<String, u64> {
    by_name(paths)
        .into_iter()
        .map(|(carrier, (shares, _))| (carrier, shares))
        .collect()
}
