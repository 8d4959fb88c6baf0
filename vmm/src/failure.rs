//! What ends a guest, from whichever thread it comes: the first is the reason, the others are its echoes.

use std::sync::{Arc, Mutex, PoisonError};

/// The place for the reason.
#[derive(Clone, Default)]
pub struct Failures(Arc<Mutex<Option<String>>>);

impl Failures {
    /// Ends the guest, for this reason unless there is one already.
    pub fn report(&self, reason: String) {
        tracing::error!("{reason}");
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
    }

    /// The reason, if there is one.
    pub fn first(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
