//! What ends a guest, from whichever thread it comes: the first is the reason, the others are its echoes.

use std::sync::{Arc, Mutex};

use crate::sync::lock;

/// The place for the reason.
#[derive(Clone, Default)]
pub struct Failures(Arc<Mutex<Option<String>>>);

impl Failures {
    /// Ends the guest, for this reason unless there is one already.
    pub fn report(&self, reason: String) {
        tracing::error!("{reason}");
        lock(&self.0).get_or_insert(reason);
    }

    /// The reason, if there is one.
    pub fn first(&self) -> Option<String> {
        lock(&self.0).clone()
    }
}
