//! One word a page: the truth about what backs it.
//!
//! ```text
//!   63                    24 23    12  11  10   9  8 7  6  5  4  3  2   0
//!  +------------------------+--------+---+---+---+---+--+--+--+--+-----+
//!  | payload                |reserved|WCH|INC|HOT|ERA|OP|TO|WA|LO|STATE|
//!  +------------------------+--------+---+---+---+---+--+--+--+--+-----+
//! ```
//!
//! * `STATE`: one of [`State`].
//! * `LO`cked: one actor is moving the page; nobody else may.
//! * `WA`iters: a thread of the guest faulted on the page while it was locked, and wants waking at the unlock.
//! * `TO`uched: the guest has used the page at some time.
//! * `OP`en: mapped so that the kernel may copy it on write without telling us (the zero page, or a frame); it carries a page
//!   credit, and may have been copied already.
//! * `ERA`: when it was evicted, modulo 4, to tell a refault from an ordinary promotion.
//! * `HOT`: brought in by a fault since the clock hand last passed.
//! * `INC`ompressible: did not compress when last tried.
//! * `W`at`CH`ed: not written to since a round of hinting began; a private page that is watched is write-protected.
//! * payload: a frame number, or a slot of the compressed pool or of the swap file.

use crate::units::Frame;

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
    /// A slot of the compressed pool.
    Compressed = 4,
    /// A slot of the swap file.
    Swapped = 5,
}

const STATE: u64 = 0b111;
const LOCKED: u64 = 1 << 3;
const WAITERS: u64 = 1 << 4;
const TOUCHED: u64 = 1 << 5;
const OPEN: u64 = 1 << 6;
const ERA_SHIFT: u32 = 7;
const ERA: u64 = 0b11 << ERA_SHIFT;
const HOT: u64 = 1 << 9;
const INCOMPRESSIBLE: u64 = 1 << 10;
const WATCHED: u64 = 1 << 11;
const PAYLOAD_SHIFT: u32 = 24;

/// Largest payload: 40 bits.
pub const PAYLOAD_MAX: u64 = u64::MAX >> PAYLOAD_SHIFT;

/// One page's word, by value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Entry(pub(crate) u64);

impl Entry {
    /// A page that the guest has never touched.
    pub const UNTOUCHED: Entry = Entry(State::Zero as u64);

    fn new(state: State, payload: u64) -> Entry {
        debug_assert!(payload <= PAYLOAD_MAX);
        Entry(state as u64 | TOUCHED | payload << PAYLOAD_SHIFT)
    }

    /// A private page that a fault brought in.
    pub fn private_hot() -> Entry {
        Entry(Entry::new(State::Private, 0).0 | HOT)
    }

    /// A private page nobody asked for.
    pub fn private() -> Entry {
        Entry::new(State::Private, 0)
    }

    /// A page that shares `frame`.
    pub fn shared(frame: Frame) -> Entry {
        Entry::new(State::Shared, u64::from(frame.0))
    }

    /// A page that shares `frame`, mapped so that the kernel copies it on write without us.
    pub fn shared_open(frame: Frame) -> Entry {
        Entry(Entry::shared(frame).0 | OPEN)
    }

    /// An open page that is open no more, and was not copied: what it was mapped to is absent, or protected.
    pub fn closed(self) -> Entry {
        match self.state() {
            State::Shared => Entry(self.0 & !OPEN),
            _ => Entry::UNTOUCHED,
        }
    }

    /// A page in slot `slot` of the compressed pool since era `era`.
    pub fn compressed(slot: u64, era: u64) -> Entry {
        Entry(Entry::new(State::Compressed, slot).0 | (era << ERA_SHIFT) & ERA)
    }

    /// A page in slot `slot` of the swap file since era `era`.
    pub fn swapped(slot: u64, era: u64) -> Entry {
        Entry(Entry::new(State::Swapped, slot).0 | (era << ERA_SHIFT) & ERA)
    }

    /// A zero page that the guest has used before.
    pub fn zero_touched() -> Entry {
        Entry::new(State::Zero, 0)
    }

    /// The kernel's zero page, mapped so that the kernel copies it on write without us.
    pub fn zero_open() -> Entry {
        Entry(State::Zero as u64 | OPEN)
    }

    /// The same page in the balloon: it stays touched if it was.
    pub fn into_ballooned(self) -> Entry {
        Entry(State::Ballooned as u64 | self.0 & TOUCHED)
    }

    /// The same page back from the balloon, or reported free: zero, touched if it was.
    pub fn into_zero(self) -> Entry {
        Entry(State::Zero as u64 | self.0 & TOUCHED)
    }

    /// The same page after the clock hand passed it.
    pub fn cooled(self) -> Entry {
        Entry(self.0 & !HOT)
    }

    /// The same page after it would not compress.
    pub fn into_incompressible(self) -> Entry {
        Entry(self.0 | INCOMPRESSIBLE)
    }

    /// The same page, to be tried for compression again.
    pub fn compressible_again(self) -> Entry {
        Entry(self.0 & !INCOMPRESSIBLE)
    }

    /// The same page, from now on known to have been written to or not.
    pub fn into_watched(self) -> Entry {
        Entry(self.0 | WATCHED)
    }

    /// The same page, watched no more.
    pub fn into_unwatched(self) -> Entry {
        Entry(self.0 & !WATCHED)
    }

    /// What backs the page.
    pub fn state(self) -> State {
        match self.0 & STATE {
            0 => State::Zero,
            1 => State::Private,
            2 => State::Shared,
            3 => State::Ballooned,
            4 => State::Compressed,
            _ => State::Swapped,
        }
    }

    /// The frame of a `Shared` page.
    pub fn frame(self) -> Frame {
        debug_assert_eq!(self.state(), State::Shared);
        Frame((self.0 >> PAYLOAD_SHIFT) as u32)
    }

    /// The slot of a `Compressed` or `Swapped` page.
    pub fn slot(self) -> u64 {
        self.0 >> PAYLOAD_SHIFT
    }

    /// Era of a `Compressed` or `Swapped` page's eviction.
    pub fn era(self) -> u64 {
        (self.0 & ERA) >> ERA_SHIFT
    }

    /// The guest has used the page.
    pub fn touched(self) -> bool {
        self.0 & TOUCHED != 0
    }

    /// The kernel may copy the page on write without us.
    pub fn open(self) -> bool {
        self.0 & OPEN != 0
    }

    /// A fault brought the page in since the clock hand last passed.
    pub fn hot(self) -> bool {
        self.0 & HOT != 0
    }

    /// Did not compress when last tried.
    pub fn incompressible(self) -> bool {
        self.0 & INCOMPRESSIBLE != 0
    }

    /// Not written to since it was watched.
    pub fn watched(self) -> bool {
        self.0 & WATCHED != 0
    }

    /// Page credits the page carries: what it occupies, or may come to occupy without our doing.
    pub fn credits(self) -> i64 {
        i64::from(self.state() == State::Private || self.open())
    }

    pub(crate) fn locked(self) -> bool {
        self.0 & LOCKED != 0
    }

    pub(crate) fn with_lock(self) -> Entry {
        Entry(self.0 | LOCKED)
    }

    /// The entry without the marks of who works or waits on it.
    pub(crate) fn unlocked(self) -> Entry {
        Entry(self.0 & !(LOCKED | WAITERS))
    }

    pub(crate) fn with_waiters(self) -> Entry {
        Entry(self.0 | WAITERS)
    }

    pub(crate) fn waiters(self) -> bool {
        self.0 & WAITERS != 0
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}({:#x})", self.state(), self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_and_flags_do_not_touch_each_other() {
        let entry = Entry::compressed(PAYLOAD_MAX, 7);
        assert_eq!((entry.state(), entry.slot(), entry.era()), (State::Compressed, PAYLOAD_MAX, 3));
        assert!(entry.touched() && !entry.open() && !entry.locked() && !entry.hot());
        let locked = entry.with_lock().with_waiters();
        assert!(locked.locked() && locked.waiters());
        assert_eq!((locked.state(), locked.slot()), (entry.state(), entry.slot()));
    }

    #[test]
    fn only_private_and_open_pages_carry_a_credit() {
        let carrying = [Entry::private(), Entry::private_hot(), Entry::zero_open(), Entry::shared_open(Frame(7))];
        let free = [Entry::UNTOUCHED, Entry::zero_touched(), Entry::shared(Frame(7)), Entry::compressed(1, 0)];
        assert!(carrying.iter().all(|entry| entry.credits() == 1));
        assert!(free.iter().all(|entry| entry.credits() == 0));
        assert_eq!(Entry::private().into_ballooned().credits(), 0);
        assert_eq!(Entry::shared_open(Frame(7)).closed(), Entry::shared(Frame(7)));
    }
}
