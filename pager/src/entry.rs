//! One word a page: the truth about what backs it.
//!
//! ```text
//!   63                    24 23    12  11  10   9  8 7  6  5  4  3  2   0
//!  +------------------------+--------+---+---+---+---+--+--+--+--+-----+
//!  | payload                |  AGE   |WCH|INC|PRO|ERA|OP|TO|WA|LO|STATE|
//!  +------------------------+--------+---+---+---+---+--+--+--+--+-----+
//! ```
//!
//! * `STATE`: one of [`State`].
//! * `LO`cked: one actor is moving the page; nobody else may.
//! * `WA`iters: a thread of the guest faulted on the page while it was locked, and wants waking at the unlock.
//! * `TO`uched: the guest has used the page at some time.
//! * `OP`en: mapped so that the kernel may copy it on write without telling us (the zero page, or a frame); it carries a page
//!   credit, and may have been copied already.
//! * `ERA`: when it was evicted, modulo 4, to tell a refault from an ordinary promotion. Its lower bit says of a private page that it is *unseen*:
//!   fresh, and nobody has looked yet whether others have the same.
//! * `INC`ompressible: of a private page, did not compress when last tried; of a compressed one, it was packed, or could not be.
//! * `W`at`CH`ed: not written to since a round of hinting began; a private page that is watched is write-protected.
//! * `AGE`: of a private page, how many passes of the hand it survives (4 bits); of one that was evicted, how many pages had been
//!   evicted before it, in units of [`Left`]. See [`crate::rules::victims`].
//! * `PRO`bed: of a private page, write-protected for a sample of the guest's activity, and not written to since; of an evicted one, evicted for
//!   a sample.
//! * payload: a frame number, or a slot of the compressed pool or of the swap file; of a page with nothing behind it, who took what was
//!   there ([`Taker`]), and `AGE` and `ERA` are 14 bits of the era in which that was.

use wire::Frame;

use crate::rules::victims::LIVES_MAX;

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
    /// The image that the guest started from: it holds the same.
    Clean = 6,
}

const STATE: u64 = 0b111;
const LOCKED: u64 = 1 << 3;
const WAITERS: u64 = 1 << 4;
const TOUCHED: u64 = 1 << 5;
const OPEN: u64 = 1 << 6;
const ERA_SHIFT: u32 = 7;
const ERA: u64 = 0b11 << ERA_SHIFT;
/// Of a private page, which never left, where others have the lower bit of the era in which they did.
const UNSEEN: u64 = 1 << ERA_SHIFT;
const INCOMPRESSIBLE: u64 = 1 << 10;
const WATCHED: u64 = 1 << 11;
const PROBED: u64 = 1 << 9;
const AGE_SHIFT: u32 = 12;
const AGE: u64 = 0xfff << AGE_SHIFT;
const PAYLOAD_SHIFT: u32 = 24;
const PAYLOAD: u64 = u64::MAX << PAYLOAD_SHIFT;

/// Largest payload: 40 bits.
pub const PAYLOAD_MAX: u64 = u64::MAX >> PAYLOAD_SHIFT;

/// When a page left: the era, modulo 4, and the pages evicted before it, in units of its guest's choice, modulo 4096.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// The era.
    pub era: u64,
    /// Units of pages evicted.
    pub evictions: u64,
}

impl Left {
    /// From now on, the era and the units of evictions that have passed since, as far as they can be known.
    pub fn until(self, now: Left) -> Left {
        Left {
            era: now.era.wrapping_sub(self.era) & (ERA >> ERA_SHIFT),
            evictions: now.evictions.wrapping_sub(self.evictions) & (AGE >> AGE_SHIFT),
        }
    }

    fn bits(self) -> u64 {
        (self.era << ERA_SHIFT) & ERA | (self.evictions << AGE_SHIFT) & AGE
    }
}

/// Who took what was behind a page that now has nothing behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Taker {
    /// The guest reported it free, or hinted at it.
    Reporting = 1,
    /// The guest gave it up.
    Balloon = 2,
    /// It was all zero.
    Zero = 3,
}

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

    /// A private page that survives `lives` passes of the hand, at most [`crate::rules::victims::LIVES_MAX`].
    pub fn private_with(lives: u8) -> Entry {
        debug_assert!(lives <= LIVES_MAX);
        Entry(Entry::new(State::Private, 0).0 | u64::from(lives) << AGE_SHIFT)
    }

    /// A private page nobody asked for.
    pub fn private() -> Entry {
        Entry::new(State::Private, 0)
    }

    /// A private page that the guest had nothing in before: nobody knows whether others have the same.
    pub fn fresh() -> Entry {
        Entry(Entry::private().0 | UNSEEN)
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

    /// A page in slot `slot` of the compressed pool.
    pub fn compressed(slot: u64, left: Left) -> Entry {
        Entry(Entry::new(State::Compressed, slot).0 | left.bits())
    }

    /// A page in slot `slot` of the swap file.
    pub fn swapped(slot: u64, left: Left) -> Entry {
        Entry(Entry::new(State::Swapped, slot).0 | left.bits())
    }

    /// A page that equals what was loaded from the image.
    pub fn clean(left: Left) -> Entry {
        Entry(Entry::new(State::Clean, 0).0 | left.bits())
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
        self.emptied(State::Ballooned)
    }

    /// The same page back from the balloon, or reported free: zero, touched if it was.
    pub fn into_zero(self) -> Entry {
        self.emptied(State::Zero)
    }

    /// With nothing behind it. Who took what was there before is remembered still.
    fn emptied(self, state: State) -> Entry {
        let remembered = if self.taken().is_some() { TOUCHED | ERA | AGE | PAYLOAD } else { TOUCHED };
        Entry(state as u64 | self.0 & remembered)
    }

    /// A page with nothing behind it, of which `taker` took what was there in this era.
    pub fn taken_by(self, taker: Taker, era: u64) -> Entry {
        debug_assert!(matches!(self.state(), State::Zero | State::Ballooned) && !self.open());
        let left = Left { era, evictions: era >> 2 };
        Entry(self.0 & !(ERA | AGE | PAYLOAD) | left.bits() | (taker as u64) << PAYLOAD_SHIFT)
    }

    /// By whom what was behind a page was taken, if that is remembered.
    pub fn taken(self) -> Option<Taker> {
        match (self.state(), self.0 >> PAYLOAD_SHIFT) {
            (State::Zero | State::Ballooned, 1) => Some(Taker::Reporting),
            (State::Zero | State::Ballooned, 2) => Some(Taker::Balloon),
            (State::Zero | State::Ballooned, 3) => Some(Taker::Zero),
            _ => None,
        }
    }

    /// Eras that passed since then, as far as 14 bits tell.
    pub fn eras_since_taken(self, era: u64) -> u64 {
        let Left { era: low, evictions: high } = self.left();
        era.wrapping_sub(low | high << 2) & 0x3fff
    }

    /// The same private page after the scanner has dealt with it.
    pub fn into_seen(self) -> Entry {
        debug_assert_eq!(self.state(), State::Private);
        Entry(self.0 & !UNSEEN)
    }

    /// Nobody has looked yet whether others have what is in this private page.
    pub fn unseen(self) -> bool {
        self.state() == State::Private && self.0 & UNSEEN != 0
    }

    /// The same private page after the hand passed it.
    pub fn cooled(self) -> Entry {
        Entry(if self.lives() > 0 { self.0 - (1 << AGE_SHIFT) } else { self.0 })
    }

    /// The same page after it would not compress.
    pub fn into_incompressible(self) -> Entry {
        Entry(self.0 | INCOMPRESSIBLE)
    }

    /// The same compressed page in another slot.
    pub fn with_slot(self, slot: u64) -> Entry {
        debug_assert!(self.state() == State::Compressed && slot <= PAYLOAD_MAX);
        Entry(self.0 & !PAYLOAD | slot << PAYLOAD_SHIFT)
    }

    /// The same compressed page after it was packed, as far as it could be.
    pub fn into_packed(self) -> Entry {
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

    /// The same page, to be written to without anybody's notice: watched and probed no more.
    pub fn into_unwatched(self) -> Entry {
        Entry(self.0 & !(WATCHED | PROBED))
    }

    /// What backs the page.
    pub fn state(self) -> State {
        match self.0 & STATE {
            0 => State::Zero,
            1 => State::Private,
            2 => State::Shared,
            3 => State::Ballooned,
            4 => State::Compressed,
            5 => State::Swapped,
            _ => State::Clean,
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

    /// When a `Compressed`, `Swapped` or `Clean` page left.
    pub fn left(self) -> Left {
        Left { era: (self.0 & ERA) >> ERA_SHIFT, evictions: (self.0 & AGE) >> AGE_SHIFT }
    }

    /// The guest has used the page.
    pub fn touched(self) -> bool {
        self.0 & TOUCHED != 0
    }

    /// The kernel may copy the page on write without us.
    pub fn open(self) -> bool {
        self.0 & OPEN != 0
    }

    /// Passes of the hand that a private page survives.
    pub fn lives(self) -> u8 {
        debug_assert_eq!(self.state(), State::Private);
        ((self.0 & AGE) >> AGE_SHIFT) as u8 & LIVES_MAX
    }

    /// This compressed page was packed, as far as it could be.
    pub fn packed(self) -> bool {
        self.state() == State::Compressed && self.0 & INCOMPRESSIBLE != 0
    }

    /// Did not compress when last tried.
    pub fn incompressible(self) -> bool {
        self.0 & INCOMPRESSIBLE != 0
    }

    /// Not written to since it was watched.
    pub fn watched(self) -> bool {
        self.0 & WATCHED != 0
    }

    /// The same page, protected or evicted for a sample.
    pub fn into_probed(self) -> Entry {
        Entry(self.0 | PROBED)
    }

    /// Evicted for a sample, or not written to since it was protected for one.
    pub fn probed(self) -> bool {
        self.0 & PROBED != 0
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
        let entry = Entry::compressed(PAYLOAD_MAX, Left { era: 7, evictions: 4097 });
        assert_eq!((entry.state(), entry.slot()), (State::Compressed, PAYLOAD_MAX));
        assert_eq!(entry.left(), Left { era: 3, evictions: 1 });
        assert!(entry.touched() && !entry.open() && !entry.locked() && !entry.incompressible() && !entry.watched());
        let locked = entry.with_lock().with_waiters();
        assert!(locked.locked() && locked.waiters());
        assert_eq!((locked.state(), locked.slot()), (entry.state(), entry.slot()));
    }

    #[test]
    fn who_took_a_page_is_known_for_hours_and_across_a_deflation() {
        let taken = Entry::private().into_ballooned().taken_by(Taker::Balloon, 0x12345);
        assert_eq!((taken.state(), taken.taken(), taken.touched()), (State::Ballooned, Some(Taker::Balloon), true));
        let deflated = taken.into_zero();
        assert_eq!((deflated.state(), deflated.taken()), (State::Zero, Some(Taker::Balloon)));
        assert_eq!([0x12345, 0x12347, 0x12345 + 9000].map(|era| deflated.eras_since_taken(era)), [0, 2, 9000]);
        assert_eq!([Entry::UNTOUCHED, Entry::zero_open(), Entry::shared(Frame(3))].map(Entry::taken), [None; 3]);
        assert_eq!(Entry::shared(Frame(2)).into_zero().taken(), None, "a frame's number is nobody's name");
    }

    #[test]
    fn a_page_loses_a_life_at_each_pass_and_nothing_else() {
        let page = Entry::private_with(2).into_watched().into_incompressible();
        let passed = page.cooled();
        assert_eq!(
            (page.lives(), passed.lives(), passed.cooled().lives(), passed.cooled().cooled().lives()),
            (2, 1, 0, 0)
        );
        assert!(passed.cooled().watched() && passed.cooled().incompressible() && passed.state() == State::Private);
    }

    #[test]
    fn a_fresh_page_is_unseen_until_it_is_seen_and_nothing_else_changes_that() {
        let page = Entry::fresh().into_watched().into_incompressible().cooled();
        assert!(page.unseen() && page.watched() && page.lives() == 0 && page.credits() == 1);
        let seen = page.into_seen();
        assert!(!seen.unseen() && seen.watched() && seen.incompressible());
        let left = Left { era: 0b11, evictions: 0 };
        assert!(!Entry::compressed(7, left).unseen() && !Entry::private_with(LIVES_MAX).unseen());
    }

    #[test]
    fn what_passed_since_a_page_left_is_known_across_the_wrap() {
        let left = Entry::swapped(1, Left { era: 6, evictions: 4095 }).left();
        assert_eq!(left.until(Left { era: 9, evictions: 4100 }), Left { era: 3, evictions: 5 });
    }

    #[test]
    fn only_private_and_open_pages_carry_a_credit() {
        let carrying = [Entry::private(), Entry::private_with(3), Entry::zero_open(), Entry::shared_open(Frame(7))];
        let free =
            [Entry::UNTOUCHED, Entry::zero_touched(), Entry::shared(Frame(7)), Entry::compressed(1, Left::default())];
        assert!(carrying.iter().all(|entry| entry.credits() == 1));
        assert!(free.iter().all(|entry| entry.credits() == 0));
        assert_eq!(Entry::private().into_ballooned().credits(), 0);
        assert_eq!(Entry::shared_open(Frame(7)).closed(), Entry::shared(Frame(7)));
    }
}
