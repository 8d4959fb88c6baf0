//! One word a page: the truth about what backs it.
//!
//! ```text
//!   63                    24 23           12  11   10   9   8   7   6   5   4   3   2     0
//!  +------------------------+---------------+---+----+---+-------+---+---+---+---+-------+
//!  | payload                | age           |WCH| 10 |PRO| era   |OP |TO |WA |LO | STATE |
//!  +------------------------+---------------+---+----+---+-------+---+---+---+---+-------+
//!   Private   left, X         lives (4 bits)  W   I    P    . U       T
//!   Shared    frame                           W                   O   T
//!   Zero      taker           era, high bits                era   O   T
//!   Ballooned taker           era, high bits                era       T
//!   Compressed slot, pattern  evictions       W   K    P    era       T
//!   Swapped   slot            evictions                P    era       T
//!   Clean                     evictions                P    era       T
//! ```
//!
//! * `LO`cked: one actor is moving the page; nobody else may.
//! * `WA`iters: a thread of the guest faulted on the page while it was locked, and wants waking at the
//!   unlock.
//! * `TO`uched: the guest has used the page at some time.
//! * `OP`en: mapped so that the kernel may copy it on write without telling us (the zero page, or a frame);
//!   it carries a page credit, and may have been copied already.
//! * `era`, and `evictions`: when the page was evicted ([`Left`]), to tell a refault from an ordinary
//!   promotion. With nothing behind the page, both are 14 bits of the era in which the `taker` ([`Taker`])
//!   took what was there.
//! * `lives`: passes of the hand that a private page survives; see [`crate::rules::victims`].
//! * `X`: lent to the kernel: we asked it to swap the page out, and have not seen it back; with it, when that
//!   was ([`Left`]). A hint: only the kernel knows where a private page is.
//! * `U`nseen: the page is fresh, and nobody has looked yet whether others have the same.
//! * `I`ncompressible: it did not compress when last tried. Pac`K`ed: it was packed, as far as it could be.
//! * `W`at`CH`ed: not written to since a round of hinting began; a private page that is watched is
//!   write-protected.
//! * `PRO`bed: of a private page, write-protected for a sample of the guest's activity, and not written to
//!   since; of one that is away or lent, evicted for a sample.
//!
//! Bits that mean one thing in one state and another in another have a name for each, and are read through
//! [`Entry::decode`].

use wire::Frame;

use super::{
    left::{Left, Taker},
    page::{Page, State},
};
use crate::rules::victims::LIVES_MAX;

const STATE: u64 = 0b111;
const LOCKED: u64 = 1 << 3;
const WAITERS: u64 = 1 << 4;
const TOUCHED: u64 = 1 << 5;
const OPEN: u64 = 1 << 6;
const PROBED: u64 = 1 << 9;
const WATCHED: u64 = 1 << 11;
const PAYLOAD_SHIFT: u32 = 24;
const PAYLOAD: u64 = u64::MAX << PAYLOAD_SHIFT;

/// Of a private page.
const PRIVATE_UNSEEN: u64 = 1 << 7;
const PRIVATE_INCOMPRESSIBLE: u64 = 1 << 10;
const PRIVATE_LIVES_SHIFT: u32 = 12;

/// Of one that is away.
const LEFT_ERA_SHIFT: u32 = 7;
const LEFT_ERA: u64 = ((1 << Left::ERA_BITS) - 1) << LEFT_ERA_SHIFT;
const LEFT_EVICTIONS_SHIFT: u32 = 12;
const LEFT_EVICTIONS: u64 = ((1 << Left::EVICTIONS_BITS) - 1) << LEFT_EVICTIONS_SHIFT;

/// Of one that is compressed. A payload with [`COMPRESSED_FILLED`] is no slot but a pattern.
const COMPRESSED_PACKED: u64 = 1 << 10;
const COMPRESSED_FILLED: u64 = 1 << 39;

/// Of one with nothing behind it: the era's low bits are where others have that of [`Left`], its high ones
/// next to them.
const TAKEN_LOW_BITS: u32 = Left::ERA_BITS;
const TAKEN_ERA_MASK: u64 = (1 << (Left::ERA_BITS + Left::EVICTIONS_BITS)) - 1;

/// Largest payload: 40 bits.
pub const PAYLOAD_MAX: u64 = u64::MAX >> PAYLOAD_SHIFT;

fn bits(left: Left) -> u64 {
    (left.era << LEFT_ERA_SHIFT) & LEFT_ERA | (left.evictions << LEFT_EVICTIONS_SHIFT) & LEFT_EVICTIONS
}

/// One page's word, by value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Entry(pub(super) u64);

/// New entries.
impl Entry {
    /// A page that the guest has never touched.
    pub const UNTOUCHED: Entry = Entry(State::Zero as u64);

    fn new(state: State, payload: u64) -> Entry {
        debug_assert!(payload <= PAYLOAD_MAX);
        Entry(state as u64 | TOUCHED | payload << PAYLOAD_SHIFT)
    }

    /// A private page that survives `lives` passes of the hand, at most [`LIVES_MAX`].
    pub fn private_with(lives: u8) -> Entry {
        debug_assert!(lives <= LIVES_MAX);
        Entry(Entry::new(State::Private, 0).0 | u64::from(lives) << PRIVATE_LIVES_SHIFT)
    }

    /// A private page nobody asked for.
    pub fn private() -> Entry {
        Entry::new(State::Private, 0)
    }

    /// A private page that the guest had nothing in before: nobody knows whether others have the same.
    pub fn fresh() -> Entry {
        Entry(Entry::private().0 | PRIVATE_UNSEEN)
    }

    /// A page that shares `frame`.
    pub fn shared(frame: Frame) -> Entry {
        Entry::new(State::Shared, u64::from(frame.0))
    }

    /// A page that shares `frame`, mapped so that the kernel copies it on write without us.
    pub fn shared_open(frame: Frame) -> Entry {
        Entry(Entry::shared(frame).0 | OPEN)
    }

    /// A page in slot `slot` of the compressed pool.
    pub fn pooled(slot: u64, left: Left) -> Entry {
        debug_assert!(slot & COMPRESSED_FILLED == 0);
        Entry(Entry::new(State::Compressed, slot).0 | bits(left))
    }

    /// A page that is this pattern over and over.
    pub fn filled(pattern: u32, left: Left) -> Entry {
        Entry(Entry::new(State::Compressed, COMPRESSED_FILLED | u64::from(pattern)).0 | bits(left))
    }

    /// A page in slot `slot` of the swap file.
    pub fn swapped(slot: u64, left: Left) -> Entry {
        Entry(Entry::new(State::Swapped, slot).0 | bits(left))
    }

    /// A page that equals what was loaded from the image.
    pub fn clean(left: Left) -> Entry {
        Entry(Entry::new(State::Clean, 0).0 | bits(left))
    }

    /// A zero page that the guest has used before.
    pub fn zero_touched() -> Entry {
        Entry::new(State::Zero, 0)
    }

    /// The kernel's zero page, mapped so that the kernel copies it on write without us.
    pub fn zero_open() -> Entry {
        Entry(State::Zero as u64 | OPEN)
    }
}

/// The same page, a little later.
impl Entry {
    /// An open page that is open no more, and was not copied: what it was mapped to is absent, or protected.
    pub fn closed(self) -> Entry {
        match self.state() {
            State::Shared => Entry(self.0 & !OPEN),
            _ => Entry::UNTOUCHED,
        }
    }

    /// In the balloon: it stays touched if it was.
    pub fn into_ballooned(self) -> Entry {
        self.emptied(State::Ballooned)
    }

    /// Back from the balloon, or reported free: zero, touched if it was.
    pub fn into_zero(self) -> Entry {
        self.emptied(State::Zero)
    }

    /// With nothing behind it. Who took what was there before is remembered still.
    fn emptied(self, state: State) -> Entry {
        let past = LEFT_ERA | LEFT_EVICTIONS | PAYLOAD;
        let remembered = if self.taken().is_some() { TOUCHED | past } else { TOUCHED };
        Entry(state as u64 | self.0 & remembered)
    }

    /// A page with nothing behind it, of which `taker` took what was there in this era.
    pub fn taken_by(self, taker: Taker, era: u64) -> Entry {
        debug_assert!(matches!(self.state(), State::Zero | State::Ballooned) && !self.open());
        let at = bits(Left { era, evictions: era >> TAKEN_LOW_BITS });
        Entry(self.0 & !(LEFT_ERA | LEFT_EVICTIONS | PAYLOAD) | at | (taker as u64) << PAYLOAD_SHIFT)
    }

    /// A private page after the scanner has dealt with it.
    pub fn into_seen(self) -> Entry {
        debug_assert_eq!(self.state(), State::Private);
        Entry(self.0 & !PRIVATE_UNSEEN)
    }

    /// A private page after the hand passed it.
    pub fn cooled(self) -> Entry {
        let lives = matches!(self.decode(), Page::Private { lives: 1.., .. });
        Entry(if lives { self.0 - (1 << PRIVATE_LIVES_SHIFT) } else { self.0 })
    }

    /// A private page after it would not compress.
    pub fn into_incompressible(self) -> Entry {
        debug_assert_eq!(self.state(), State::Private);
        Entry(self.0 | PRIVATE_INCOMPRESSIBLE)
    }

    /// A private page that did not compress when last tried.
    pub(super) fn is_noise(self) -> bool {
        matches!(self.decode(), Page::Private { incompressible: true, .. })
    }

    /// A page of the pool in another slot.
    pub fn with_slot(self, slot: u64) -> Entry {
        debug_assert!(self.is_pooled() && slot & COMPRESSED_FILLED == 0);
        Entry(self.0 & !PAYLOAD | slot << PAYLOAD_SHIFT)
    }

    /// A page of the pool after it was packed, as far as it could be.
    pub fn into_packed(self) -> Entry {
        debug_assert!(self.is_pooled());
        Entry(self.0 | COMPRESSED_PACKED)
    }

    /// From now on known to have been written to or not.
    pub fn into_watched(self) -> Entry {
        Entry(self.0 | WATCHED)
    }

    /// To be written to without anybody's notice: watched and probed no more.
    pub fn into_unwatched(self) -> Entry {
        Entry(self.0 & !(WATCHED | PROBED))
    }

    /// Protected or evicted for a sample.
    pub fn into_probed(self) -> Entry {
        Entry(self.0 | PROBED)
    }
}

/// Questions.
impl Entry {
    /// What the word says, by state.
    pub fn decode(self) -> Page {
        let payload = self.0 >> PAYLOAD_SHIFT;
        match self.state() {
            State::Zero => Page::Zero { open: self.open() },
            State::Private => Page::Private {
                lives: (self.0 >> PRIVATE_LIVES_SHIFT) as u8 & LIVES_MAX,
                incompressible: self.0 & PRIVATE_INCOMPRESSIBLE != 0,
                unseen: self.0 & PRIVATE_UNSEEN != 0,
                lent: self.lent(),
            },
            State::Shared => Page::Shared { frame: Frame(payload as u32), open: self.open() },
            State::Ballooned => Page::Ballooned,
            State::Compressed if payload & COMPRESSED_FILLED != 0 => Page::Filled { pattern: payload as u32 },
            State::Compressed => Page::Pooled { slot: payload, packed: self.0 & COMPRESSED_PACKED != 0 },
            State::Swapped => Page::Swapped { slot: payload },
            State::Clean => Page::Clean,
        }
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

    /// The page is in a tier: evicted, and not back yet.
    pub fn is_away(self) -> bool {
        matches!(self.state(), State::Compressed | State::Swapped | State::Clean)
    }

    /// The page takes room in the pool.
    pub fn is_pooled(self) -> bool {
        matches!(self.decode(), Page::Pooled { .. })
    }

    /// When a page that is away left.
    pub fn left(self) -> Left {
        debug_assert!(self.is_away());
        self.past()
    }

    fn past(self) -> Left {
        Left {
            era: (self.0 & LEFT_ERA) >> LEFT_ERA_SHIFT,
            evictions: (self.0 & LEFT_EVICTIONS) >> LEFT_EVICTIONS_SHIFT,
        }
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
        let Left { era: low, evictions: high } = self.past();
        era.wrapping_sub(low | high << TAKEN_LOW_BITS) & TAKEN_ERA_MASK
    }

    /// The guest has used the page.
    pub fn touched(self) -> bool {
        self.0 & TOUCHED != 0
    }

    /// The kernel may copy the page on write without us.
    pub fn open(self) -> bool {
        self.0 & OPEN != 0
    }

    /// Not written to since it was watched.
    pub fn watched(self) -> bool {
        self.0 & WATCHED != 0
    }

    /// Evicted for a sample, or not written to since it was protected for one.
    pub fn probed(self) -> bool {
        self.0 & PROBED != 0
    }

    /// Page credits the page carries: what it occupies, or may come to occupy without our doing.
    pub fn credits(self) -> i64 {
        i64::from(self.state() == State::Private || self.open())
    }

    /// What the table's sums go by.
    pub(super) fn summed(self) -> u64 {
        self.0 & (STATE | TOUCHED | OPEN)
    }

    pub(crate) fn locked(self) -> bool {
        self.0 & LOCKED != 0
    }

    pub(crate) fn with_lock(self) -> Entry {
        Entry(self.0 | LOCKED)
    }

    /// The entry without the marks of who works or waits on it.
    pub(super) fn unlocked(self) -> Entry {
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
        write!(f, "{:?}({:#x})", self.decode(), self.0)
    }
}

mod lent;
#[cfg(test)]
mod tests;
