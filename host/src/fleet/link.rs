//! The way to the VMM of one life of a guest: what it was told, what it is still to be told, and a bounded
//! outbox, so that nothing in the host ever waits for a VMM to read.
//!
//! ```text
//!   Orders ── what it does not go by yet ──┐
//!   messages ──────────────────────────────┼──► outbox ──► `socket::send_all`
//!   answers of the frame store ──► Kept ───┘
//!                                  while the VMM says nothing
//! ```

use control::ToVmm;
use dedup::VmmId;
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use crate::fleet::kept::Kept;
use crate::fleet::orders::{Grant, Orders, STANDING};

/// Messages that may wait for one VMM: merge answers to more questions than a scanner has under way.
pub const OUTBOX_MAX: usize = 1024;

/// The VMM has left its outbox full: it no longer reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unread;

/// How much of its orders a VMM is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hears {
    /// All of them: its guest runs.
    All,
    /// What memory it gets: the rest can wait until its guest runs.
    Grant,
    /// None: it says nothing, and would only have to read it all later.
    Nothing,
}

/// See the module's description.
#[derive(Debug)]
pub struct Link {
    /// The VMM's number, which no other VMM of the run has had.
    pub id: VmmId,
    /// Its process id.
    pub pid: u32,
    outbox: Sender<ToVmm>,
    /// By standing order: what it goes by.
    told: [Option<ToVmm>; STANDING],
    kept: Kept,
}

impl Link {
    /// To a VMM that was told nothing yet.
    pub fn new(id: VmmId, pid: u32, outbox: Sender<ToVmm>) -> Link {
        Link { id, pid, outbox, told: Default::default(), kept: Kept::default() }
    }

    /// Its first message, which says what memory its guest gets.
    pub fn begin(&mut self, start: ToVmm, grant: Grant) {
        // A new outbox has room; if its VMM is gone already, the guest's task finds out.
        let _ = self.send(start);
        self.told[0] = Some(grant.message());
    }

    /// Puts a message into the outbox. Whoever is gone is reported by its reader.
    pub fn send(&self, message: ToVmm) -> Result<(), Unread> {
        match self.outbox.try_send(message) {
            Err(TrySendError::Full(_)) => Err(Unread),
            Ok(()) | Err(TrySendError::Closed(_)) => Ok(()),
        }
    }

    /// Tells it what it does not go by yet, as far as it hears, and what is for this tick alone.
    pub fn order(&mut self, orders: &Orders, hears: Hears) -> Result<(), Unread> {
        self.tell(orders, hears)?;
        if hears == Hears::All { orders.momentary().try_for_each(|message| self.send(message)) } else { Ok(()) }
    }

    /// Whether messages that are not to be lost wait for it to speak.
    pub fn is_behind(&self) -> bool {
        !self.kept.is_empty()
    }

    /// Keeps a message until it speaks.
    pub fn keep(&mut self, message: ToVmm) -> Result<(), Unread> {
        self.kept.keep(message, OUTBOX_MAX).map_err(|_| Unread)
    }

    /// It speaks: it is told what has changed meanwhile, and what was kept as far as there is room for it.
    pub fn catch_up(&mut self, orders: Option<&Orders>, hears: Hears) {
        // What finds no room now does with the next status.
        let _ = orders.map_or(Ok(()), |orders| self.tell(orders, hears));
        for message in self.kept.take(self.outbox.capacity()) {
            let _ = self.outbox.try_send(message);
        }
    }

    fn tell(&mut self, orders: &Orders, hears: Hears) -> Result<(), Unread> {
        let heard = match hears {
            Hears::All => STANDING,
            Hears::Grant => 1,
            Hears::Nothing => 0,
        };
        for (at, due) in orders.standing().into_iter().enumerate().take(heard) {
            if due.is_some() && self.told[at] != due {
                due.clone().map_or(Ok(()), |message| self.send(message))?;
                self.told[at] = due;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use control::merge::MergeAnswer;
    use control::{Reclaim, Round, Starved};
    use tokio::sync::mpsc::{Receiver, channel};
    use wire::Frame;

    use super::*;
    use crate::fleet::orders::BalloonOrders;

    fn link(messages: usize) -> (Link, Receiver<ToVmm>) {
        let (outbox, inbox) = channel(messages);
        (Link::new(VmmId::first(0), 1, outbox), inbox)
    }

    fn heard(inbox: &mut Receiver<ToVmm>) -> Vec<ToVmm> {
        std::iter::from_fn(|| inbox.try_recv().ok()).collect()
    }

    fn grant(allocation_bytes: u64) -> Grant {
        Grant { allocation_bytes, ..Grant::default() }
    }

    fn orders() -> Orders {
        let balloon = BalloonOrders {
            statistics_interval_ms: 1000,
            report_delay_ms: 2000,
            report_pages_max: 64,
            round_ends: false,
            round_begins: true,
        };
        Orders {
            grant: grant(5),
            starved: Starved::Waits,
            sample_period_ms: 30_000,
            reclaim: Reclaim::WhenShort,
            balloon: Some(balloon),
            hurry: true,
            hold_ms: Some(50),
        }
    }

    const MOMENTARY: [ToVmm; 3] = [ToVmm::Hurry, ToVmm::Hold { ms: 50 }, ToVmm::HintPages(Round::Begin)];

    #[test]
    fn what_stands_is_told_once_and_again_only_when_it_changes_and_the_rest_each_time() {
        let (mut link, mut inbox) = link(16);
        link.begin(ToVmm::Run, grant(5));
        link.order(&orders(), Hears::All).unwrap();
        let told = heard(&mut inbox);
        let standing = [
            ToVmm::Run,
            ToVmm::Starved(Starved::Waits),
            ToVmm::Sample { period_ms: 30_000 },
            ToVmm::Reclaim(Reclaim::WhenShort),
            ToVmm::PollStatistics { interval_ms: 1000 },
            ToVmm::TakeReports { delay_ms: 2000, pages_max: 64 },
        ];
        assert_eq!(told, [&standing[..], &MOMENTARY].concat(), "the grant was in its first message");
        link.order(&orders(), Hears::All).unwrap();
        assert_eq!(heard(&mut inbox), MOMENTARY);
        let calm = Orders { balloon: None, hurry: false, hold_ms: None, ..orders() };
        link.order(&Orders { starved: Starved::Ends, ..calm }, Hears::All).unwrap();
        assert_eq!(heard(&mut inbox), [ToVmm::Starved(Starved::Ends)]);
    }

    #[test]
    fn a_vmm_whose_guest_does_not_run_is_told_of_memory_only_and_of_the_rest_when_it_does() {
        let (mut link, mut inbox) = link(16);
        link.order(&orders(), Hears::Grant).unwrap();
        assert_eq!(heard(&mut inbox), [grant(5).message()]);
        link.catch_up(Some(&orders()), Hears::All);
        assert_eq!(heard(&mut inbox).len(), STANDING - 1, "what was for that tick alone is over");
    }

    #[test]
    fn a_vmm_that_speaks_again_hears_what_has_changed_and_what_was_kept_as_far_as_there_is_room() {
        let (mut link, mut inbox) = link(STANDING + 1);
        let retire = |frame| ToVmm::Merge(MergeAnswer::Retire(vec![Frame(frame)]));
        link.order(&orders(), Hears::Nothing).unwrap();
        link.keep(retire(7)).unwrap();
        link.keep(retire(8)).unwrap();
        assert!(heard(&mut inbox).is_empty() && link.is_behind());
        link.catch_up(Some(&orders()), Hears::All);
        let told = heard(&mut inbox);
        assert_eq!((told.len(), told.last()), (STANDING + 1, Some(&retire(7))));
        link.catch_up(Some(&orders()), Hears::All);
        assert_eq!(heard(&mut inbox), [retire(8)]);
        assert!(!link.is_behind());
    }

    #[test]
    fn what_finds_no_room_is_told_when_there_is_some() {
        let (mut link, mut inbox) = link(1);
        assert_eq!(link.order(&orders(), Hears::All), Err(Unread));
        assert_eq!(heard(&mut inbox), [grant(5).message()]);
        link.catch_up(Some(&orders()), Hears::All);
        assert_eq!(heard(&mut inbox), [ToVmm::Starved(Starved::Waits)]);
    }
}
