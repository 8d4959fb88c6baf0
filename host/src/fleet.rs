//! The guests that there are: their processes, lives and links, what each said last, and what they cost by
//! the kernel's books.

pub(crate) mod accounting;
pub(crate) mod budget;
pub(crate) mod console;
pub(crate) mod domains;
pub(crate) mod freshness;
pub(crate) mod guest;
pub(crate) mod kept;
pub(crate) mod link;
pub(crate) mod lives;
pub(crate) mod orders;
pub(crate) mod phase;
pub(crate) mod restarts;
pub(crate) mod socket;
pub(crate) mod start;
pub(crate) mod throttle;
