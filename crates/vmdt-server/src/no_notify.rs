//! No service manager to tell.

/// Does nothing here.
pub(crate) fn notify(_state: &str) {}
