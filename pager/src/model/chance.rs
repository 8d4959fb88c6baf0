//! What the model checker chooses.

use shuttle::rand::{Rng, thread_rng};

/// A number below `end`, the model checker's choice.
pub(super) fn below(end: u32) -> u32 {
    thread_rng().gen_range(0..end)
}

pub(super) fn coin() -> bool {
    below(2) == 0
}
