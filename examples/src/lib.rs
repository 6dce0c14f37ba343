//! What the two example programs, `file_transfer` and `chat`, are made of. The programs
//! themselves only read their arguments.
//!
//! - [`demo`]: a server and a whole cluster in one process, and one file through it.
//! - [`roles`]: the same as separate processes: a server, members, a sender, a receiver.
//! - [`chat`]: a room.
//! - [`session`]: entering a cluster and waiting for it, which all of them do.
//! - [`names`]: members as people know them.
//! - [`terminal`]: what a person sees.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "programs talk to a person"
)]

pub mod chat;
pub mod demo;
pub mod names;
pub mod roles;
pub mod session;
pub mod terminal;
