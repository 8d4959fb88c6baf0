//! What the store knows of its VMMs: how large their guests are, which frames they hold, which pages they
//! were asked for.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::time::Instant;

use wire::{Frame, Gfn};

use crate::domain::entry::PAGE_NUMBERS;
use crate::domain::index::PageNumber;
use crate::domain::vmm_id::VMMS_MAX;
use crate::{Error, ProtocolError, VmmId};

/// Most pages one VMM is asked for at a time: 16 MiB that may be on their way, and the most a silent VMM can
/// keep reserved.
pub(crate) const ASKED_MAX: usize = 4096;

/// A page that a VMM was asked for.
#[derive(Clone, Copy, Debug)]
struct Asked {
    /// Where it has it.
    gfn: Gfn,
    /// Since when, as far as the domain has been told the time.
    since: Option<Instant>,
}

/// One VMM of the domain.
#[derive(Debug)]
pub(crate) struct Session {
    /// Pages of its guest.
    pub(crate) pages: u32,
    /// Its number among those that live.
    seat: u32,
    /// Frames it was asked to send.
    asked: HashMap<Frame, Asked>,
    holds: Vec<u64>,
}

impl Session {
    /// Asks it for a page, unless it was asked for too many already.
    pub(crate) fn ask(&mut self, gfn: Gfn, frame: Frame) {
        self.asked.insert(frame, Asked { gfn, since: None });
    }

    /// Whether it can be asked for one page more.
    pub(crate) fn may_be_asked(&self) -> bool {
        self.asked.len() < ASKED_MAX
    }

    /// Whether it was asked for this page, for this frame; it is not any more.
    pub(crate) fn take_asked(&mut self, (gfn, frame): (Gfn, Frame)) -> bool {
        if self.asked.get(&frame).is_none_or(|asked| asked.gfn != gfn) {
            return false;
        }
        self.asked.remove(&frame);
        if self.asked.is_empty() {
            // Between two bursts of publishing nothing is kept for the next.
            self.asked = HashMap::new();
        }
        true
    }

    /// Frames it was asked for.
    pub(crate) fn asked(&self) -> impl Iterator<Item = Frame> {
        self.asked.keys().copied()
    }

    /// When it was asked for what it has owed longest, or the time was first asked for since.
    pub(crate) fn owes_since(&mut self, now: Instant) -> Option<Instant> {
        self.asked.values_mut().map(|asked| *asked.since.get_or_insert(now)).min()
    }

    /// Sets whether it holds a frame of the store; returns whether that is news.
    pub(crate) fn set_held(&mut self, frame: Frame, held: bool) -> bool {
        let (word, bit) = (&mut self.holds[frame.index() / 64], 1 << (frame.0 % u64::BITS));
        let was = *word & bit != 0;
        if was != held {
            *word ^= bit;
        }
        was != held
    }

    /// Every frame it holds, ascending.
    pub(crate) fn held(&self) -> impl Iterator<Item = Frame> {
        self.holds.iter().zip(0u32..).flat_map(|(&word, at)| {
            (0..u64::BITS).filter(move |bit| word >> bit & 1 != 0).map(move |bit| Frame(at * u64::BITS + bit))
        })
    }
}

/// All VMMs of the domain. Each has a *seat*, the lowest that is free, which numbers its pages among those of
/// all.
#[derive(Debug)]
pub(crate) struct Sessions {
    living: BTreeMap<VmmId, Session>,
    seats: Vec<Option<VmmId>>,
    /// Pages of the largest guest there can be.
    seat_pages: u32,
    /// Frames of the store.
    frames: u32,
}

impl Sessions {
    /// Nobody, in a domain for guests of so many pages, with a store of so many frames.
    pub(crate) fn new(seat_pages: u32, frames: u32) -> Self {
        Self { living: BTreeMap::new(), seats: Vec::new(), seat_pages, frames }
    }

    /// A VMM comes in.
    pub(crate) fn join(&mut self, vmm: VmmId, pages: u32) -> Result<(), Error> {
        if pages > self.seat_pages {
            return Err(Error::GuestTooLarge { pages, home_frames: self.seat_pages });
        }
        if self.living.contains_key(&vmm) {
            return Err(Error::Duplicate(vmm));
        }
        if self.living.len() >= usize::from(VMMS_MAX) {
            return Err(Error::Full(vmm));
        }
        let seat = self.seats.iter().position(Option::is_none).unwrap_or(self.seats.len());
        self.seats.resize(self.seats.len().max(seat + 1), None);
        self.seats[seat] = Some(vmm);
        let holds = vec![0; self.frames.div_ceil(u64::BITS) as usize];
        self.living.insert(vmm, Session { pages, seat: seat as u32, asked: HashMap::new(), holds });
        Ok(())
    }

    /// A VMM is gone.
    pub(crate) fn leave(&mut self, vmm: VmmId) -> Option<Session> {
        let session = self.living.remove(&vmm)?;
        self.seats[session.seat as usize] = None;
        Some(session)
    }

    /// A VMM that lives.
    pub(crate) fn get(&mut self, vmm: VmmId) -> Result<&mut Session, ProtocolError> {
        self.living.get_mut(&vmm).ok_or(ProtocolError::Unknown(vmm))
    }

    /// Whether it lives.
    pub(crate) fn has(&self, vmm: VmmId) -> bool {
        self.living.contains_key(&vmm)
    }

    /// All that live, ascending.
    pub(crate) fn ids(&self) -> impl Iterator<Item = VmmId> {
        self.living.keys().copied()
    }

    /// All that live.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (VmmId, &mut Session)> {
        self.living.iter_mut().map(|(&vmm, session)| (vmm, session))
    }

    /// Pages of all guests.
    pub(crate) fn pages(&self) -> usize {
        self.living.values().map(|session| session.pages as usize).sum()
    }

    /// Pages that VMMs were asked for.
    pub(crate) fn asked(&self) -> u64 {
        self.living.values().map(|session| session.asked.len() as u64).sum()
    }

    /// The number of a VMM's page among those of all; none for the pages beyond the first 4 TiB, of which no
    /// candidate is kept.
    pub(crate) fn page_number(&self, vmm: VmmId, gfn: Gfn) -> Option<PageNumber> {
        let first = u64::from(self.living.get(&vmm)?.seat) * u64::from(self.seat_pages);
        u32::try_from(first + u64::from(gfn.0)).ok().filter(|&number| number < PAGE_NUMBERS).map(PageNumber)
    }

    /// Whose page that is.
    pub(crate) fn page(&self, number: PageNumber) -> Option<(VmmId, Gfn)> {
        let vmm = *self.seats.get((number.0 / self.seat_pages) as usize)?;
        Some((vmm?, Gfn(number.0 % self.seat_pages)))
    }

    /// The numbers of all its pages.
    pub(crate) fn page_numbers(&self, session: &Session) -> Range<u32> {
        let first = u64::from(session.seat) * u64::from(self.seat_pages);
        let [first, end] =
            [first, first + u64::from(self.seat_pages)].map(|number| number.min(u64::from(PAGE_NUMBERS)) as u32);
        first..end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_is_given_again_and_numbers_pages_without_a_clash() {
        let mut sessions = Sessions::new(100, 200);
        (0..3).for_each(|vmm| sessions.join(VmmId::first(vmm), 60 + vmm).unwrap());
        assert_eq!(
            (0..3).map(|vmm| sessions.page_number(VmmId::first(vmm), Gfn(7)).unwrap().0).collect::<Vec<_>>(),
            [7, 107, 207]
        );
        let gone = sessions.leave(VmmId::first(1)).unwrap();
        assert_eq!(sessions.page_numbers(&gone), 100..200);
        assert_eq!(sessions.page(PageNumber(107)), None);
        sessions.join(VmmId::first(9), 100).unwrap();
        assert_eq!(sessions.page(PageNumber(107)), Some((VmmId::first(9), Gfn(7))));
        assert_eq!(sessions.page(PageNumber(1007)), None);
    }

    #[test]
    fn as_many_join_as_can_hold_one_frame() {
        let mut sessions = Sessions::new(1, 2);
        let joined: Vec<_> = (0..=u32::from(VMMS_MAX)).map(|vmm| sessions.join(VmmId::first(vmm), 1)).collect();
        let (last, before) = joined.split_last().unwrap();
        assert!(before.iter().all(Result::is_ok) && matches!(last, Err(Error::Full(_))), "{last:?}");
    }

    #[test]
    fn pages_beyond_what_can_be_numbered_have_no_number() {
        let mut sessions = Sessions::new(PAGE_NUMBERS - 5, 0);
        (0..3).for_each(|vmm| sessions.join(VmmId::first(vmm), 100).unwrap());
        assert_eq!(sessions.page_number(VmmId::first(1), Gfn(4)), Some(PageNumber(PAGE_NUMBERS - 1)));
        assert_eq!([(1, 5), (2, 0)].map(|(vmm, gfn)| sessions.page_number(VmmId::first(vmm), Gfn(gfn))), [None, None]);
    }
}
