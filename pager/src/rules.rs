//! What to do when: small rules, most of them pure. They are told figures and the time, and touch no page.

pub(crate) mod floor;
pub mod notice;
pub mod proactive;
pub mod reach;
pub(crate) mod stay;
pub mod victims;
pub mod working_set;
