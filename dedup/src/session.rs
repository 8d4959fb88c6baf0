//! What the store knows of one VMM: how large its guest is, which frames it holds, which pages it was asked for.

use std::collections::HashMap;
use std::fmt;
use std::time::Instant;

/// Most pages one VMM is asked for at a time: 16 MiB that may be on their way, and the most a silent VMM can keep reserved.
pub(crate) const ASKED_MAX: usize = 4096;

/// A VMM, by the number the host gave it. Never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VmmId(pub u32);

impl fmt::Display for VmmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VMM {}", self.0)
    }
}

/// A page that a VMM was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    /// Where it has it.
    pub(crate) gfn: u32,
    /// Since when, as far as the domain has been told the time.
    pub(crate) since: Option<Instant>,
}

/// One VMM of the domain.
#[derive(Debug)]
pub(crate) struct Session {
    /// Pages of its guest.
    pub(crate) pages: u32,
    /// Frames it was asked to send.
    pub(crate) asked: HashMap<u32, Asked>,
    holds: Vec<u64>,
}

impl Session {
    pub(crate) fn new(pages: u32, frames: u32) -> Self {
        Self { pages, asked: HashMap::new(), holds: vec![0; frames.div_ceil(u64::BITS) as usize] }
    }

    /// Sets whether it holds a frame; returns whether that is news.
    pub(crate) fn set_held(&mut self, frame: u32, held: bool) -> bool {
        let (word, bit) = (&mut self.holds[(frame / u64::BITS) as usize], 1 << (frame % u64::BITS));
        let was = *word & bit != 0;
        if was != held {
            *word ^= bit;
        }
        was != held
    }

    /// Every frame it holds, ascending.
    pub(crate) fn held(&self) -> impl Iterator<Item = u32> {
        self.holds.iter().zip(0u32..).flat_map(|(&word, at)| {
            (0..u64::BITS).filter(move |bit| word >> bit & 1 != 0).map(move |bit| at * u64::BITS + bit)
        })
    }
}
