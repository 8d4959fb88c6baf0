//! Why policy did what it did, for people: what it decided so far, and what would change it.

pub mod record;
pub mod remedy;
