//! What a word says, by state: no bit of it means one thing here and another there.

use wire::Frame;

use super::left::Left;

/// What backs a page. See the table in the crate's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum State {
    /// The kernel's zero page, or nothing at all.
    Zero = 0,
    /// Its own anonymous page.
    Private = 1,
    /// A frame of the store, mapped write-protected, or open to the kernel's copy.
    Shared = 2,
    /// Nothing: the guest gave it up.
    Ballooned = 3,
    /// A slot of the compressed pool, or a pattern that fills it.
    Compressed = 4,
    /// A slot of the swap file.
    Swapped = 5,
    /// The image that the guest started from: it holds the same.
    Clean = 6,
}

/// What backs a page, and what is known of it in that state. What is known in several states (touched,
/// watched, probed, when it left) is asked of the entry itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// Nothing, or the zero page.
    Zero {
        /// Mapped to the zero page, so that the kernel may copy it on write without telling us.
        open: bool,
    },
    /// Its own anonymous page.
    Private {
        /// Passes of the hand that it survives.
        lives: u8,
        /// Did not compress when last tried.
        incompressible: bool,
        /// Fresh: nobody has looked yet whether others have what is in it.
        unseen: bool,
        /// Since when the kernel has it, as far as we know.
        lent: Option<Left>,
    },
    /// A frame of the store.
    Shared {
        /// Which.
        frame: Frame,
        /// Mapped so that the kernel may copy it on write without telling us.
        open: bool,
    },
    /// Nothing: the guest gave it up.
    Ballooned,
    /// Nothing but this: a 32-bit pattern, over and over. It counts as compressed.
    Filled {
        /// The pattern.
        pattern: u32,
    },
    /// A slot of the compressed pool.
    Pooled {
        /// Which.
        slot: u64,
        /// It was packed, as far as it could be.
        packed: bool,
    },
    /// A slot of the swap file.
    Swapped {
        /// Which.
        slot: u64,
    },
    /// The image that the guest started from: it holds the same.
    Clean,
}
