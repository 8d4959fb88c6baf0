//! What holds policy back: guests that suffer for what they gave or give nothing, and how long they wait.

pub mod backoff;
pub mod regret;
pub mod waits;
