//! Where random bytes come from.

use std::fs::File;
use std::io::{self, Read};

/// A source of randomness good enough for keys.
pub trait Source: Send + Sync {
    /// Fills `into`, all of it.
    fn fill(&self, into: &mut [u8]) -> io::Result<()>;
}

/// A descriptor of `/dev/urandom`, opened elsewhere, or of a generator of the machine's.
impl Source for File {
    fn fill(&self, into: &mut [u8]) -> io::Result<()> {
        let mut file = self;
        file.read_exact(into)
    }
}
