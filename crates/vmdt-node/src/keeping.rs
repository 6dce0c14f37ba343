//! The driver's part of what outlives the process: a thread that commits batches, one that writes
//! the files that are kept, and the sources of transfers that go on.

use std::path::Path;

use bytes::Bytes;
use tokio::sync::mpsc;
use vmdt_pool::{OpId, Persist, StorageError, Store};
use vmdt_wire::MessageId;

use crate::core::{ContentHash, SinkOp};
use crate::files::SourceFile;
use crate::parts::KeptPart;

/// Pieces that are synced together at the most.
const SYNC_BATCH: usize = 64;

/// Commits batches as they come, until their sender is gone. Runs on a thread of its own.
pub(crate) fn commit(
    mut store: Box<dyn Store + std::marker::Send>,
    batches: &std::sync::mpsc::Receiver<Persist>,
    report: impl Fn(OpId, Result<(), StorageError>),
) {
    while let Ok(batch) = batches.recv() {
        report(batch.op, store.commit(&batch.changes));
    }
}

/// What the writing of a kept file reports.
pub(crate) enum Kept {
    Resumed(ContentHash),
    Written,
    Failed(String),
    Finished(std::path::PathBuf),
}

/// Writes a file that is kept: what is reported as written is synced, many pieces with one sync.
/// Runs on a thread of its own.
pub(crate) fn write_file(
    folder: &Path,
    ops: &std::sync::mpsc::Receiver<SinkOp>,
    report: impl Fn(Kept),
) {
    let mut part: Option<KeptPart> = None;
    let mut next: Option<SinkOp> = None;
    while let Some(op) = next.take().or_else(|| ops.recv().ok()) {
        let done = match op {
            SinkOp::Open { name, part: at, .. } => {
                KeptPart::create(folder, &name, &at.unwrap_or_default())
                    .map(|kept| part = Some(kept))
            }
            SinkOp::Resume {
                name,
                part: at,
                whole: true,
                ..
            } => {
                part = Some(KeptPart::of(folder, &name, &at));
                Ok(())
            }
            SinkOp::Resume {
                name,
                part: at,
                length,
                ..
            } => KeptPart::resume(folder, &name, &at, length).map(|(kept, hash)| {
                part = Some(kept);
                report(Kept::Resumed(hash));
            }),
            SinkOp::Write(octets) => match &mut part {
                Some(part) => write_all(part, octets, ops, &mut next).map(|written| {
                    (0..written).for_each(|_| report(Kept::Written));
                }),
                None => Ok(()),
            },
            SinkOp::Finish => {
                if let Some(part) = part.take() {
                    report(match part.finish() {
                        Ok(path) => Kept::Finished(path),
                        Err(why) => Kept::Failed(why),
                    });
                }
                return;
            }
            SinkOp::Abort => {
                if let Some(part) = part.take() {
                    part.discard();
                }
                return;
            }
        };
        if let Err(why) = done {
            // an abort follows
            report(Kept::Failed(why));
        }
    }
}

/// Writes a piece and those that wait behind it, and syncs once. How many there were.
fn write_all(
    part: &mut KeptPart,
    octets: Bytes,
    ops: &std::sync::mpsc::Receiver<SinkOp>,
    next: &mut Option<SinkOp>,
) -> Result<usize, String> {
    part.write(&octets)?;
    let mut written = 1;
    while written < SYNC_BATCH {
        match ops.try_recv() {
            Ok(SinkOp::Write(octets)) => {
                part.write(&octets)?;
                written += 1;
            }
            Ok(other) => {
                *next = Some(other);
                break;
            }
            Err(_) => break,
        }
    }
    part.sync()?;
    Ok(written)
}

/// Reads the file of a transfer that goes on, from its beginning. Runs on a thread of its own.
pub(crate) fn reread(
    transfer: MessageId,
    reference: &Bytes,
    mut wanted: mpsc::UnboundedReceiver<usize>,
    report: impl Fn(MessageId, Result<(Bytes, bool), String>) -> bool,
) {
    let mut file = SourceFile::reopen(reference);
    while let Some(max) = wanted.blocking_recv() {
        let result = match &mut file {
            Ok(file) => file.next(max),
            Err(why) => Err(why.clone()),
        };
        let ends = !matches!(result, Ok((_, false)));
        if !report(transfer, result) || ends {
            return;
        }
    }
}
