//! What is put into memory, and where.

use std::borrow::Cow;

/// Bytes that are in memory before the machine starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write<'a> {
    /// Guest-physical address.
    pub gpa: u64,
    /// What lies there; at least one byte.
    pub bytes: Cow<'a, [u8]>,
}

impl Write<'_> {
    /// First address behind it.
    pub fn end(&self) -> u64 {
        self.gpa + self.bytes.len() as u64
    }
}
