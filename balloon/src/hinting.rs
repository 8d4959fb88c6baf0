//! Free page hinting (5.5.6.5): rounds in which the driver names pages whose content it does not need.
//!
//! ```text
//!   host             Balloon                     PageSink     driver
//!    | begin_hinting    | ---------- watch() ------> |          |
//!    | announce_hinting | command = n, interrupt -------------> |
//!    |                  | <------------------- buffer: n ------ |   hints count from here
//!    |                  | <------------------- [free pages] --- |
//!    |                  | - drop_hinted(range) ----> |          |   unless written to since watch()
//!    |                  | <------------------- buffer: STOP --- |   or end_hinting, from the host
//!    |                  | -------- unwatch() ------> |          |
//!    |                  | command = DONE, interrupt ----------> |   the driver uses its pages again
//! ```
//!
//! "The driver MAY release hinted pages for use by the guest including when the device has not yet used the
//! descriptor containing the hinting request", and does so when it is short of memory. So a hint that is read
//! says nothing of the page *now*. What may be dropped is what 5.5.6.5.2 says: content that "has not been
//! modified by the guest since the device issued the free_page_hint_cmd_id". The sink finds that out by
//! write-protecting memory *before* the command id is visible, and trusts nobody.
//!
//! A command id is never used for a second round: it counts up (5.5.6.5.2: "MUST NOT reuse a command ID until
//! ...").

use wire::balloon::{HINT_CMD_ID_DONE, HINT_CMD_ID_FIRST, HINT_CMD_ID_STOP};

/// Why a round of hinting does not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HintingRefused {
    /// The driver does not hint, or is not there.
    #[error(
        "free pages cannot be asked for: the guest's driver did not agree to free page hinting, or has not started"
    )]
    NotNegotiated,
    /// One at a time.
    #[error("free pages are being asked for already: wait for the end of that round, or end it")]
    UnderWay,
}

/// What a command of the driver means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// Hints of the current round follow.
    Started,
    /// The driver has no more hints for the current round.
    Over,
    /// It is of no round, or an old one.
    Stale,
}

/// The round under way, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Hinting {
    /// `free_page_hint_cmd_id`, as the driver sees it.
    command: u32,
    last_id: u32,
    preparing: bool,
    accepting: bool,
    stopping: bool,
}

impl Hinting {
    /// What the driver reads in `free_page_hint_cmd_id`.
    pub(crate) fn command(&self) -> u32 {
        self.command
    }

    /// Whether what the driver names now belongs to the current round.
    pub(crate) fn accepts(&self) -> bool {
        self.accepting
    }

    /// The host wants a round; the sink is to be told first, then [`Hinting::announce`].
    pub(crate) fn prepare(&mut self) -> Result<(), HintingRefused> {
        if self.preparing || self.stopping || self.command >= HINT_CMD_ID_FIRST {
            return Err(HintingRefused::UnderWay);
        }
        self.preparing = true;
        Ok(())
    }

    /// The sink is ready. False if there was a reset meanwhile.
    pub(crate) fn announce(&mut self) -> bool {
        if !std::mem::take(&mut self.preparing) {
            return false;
        }
        self.last_id = self.last_id.wrapping_add(1).max(HINT_CMD_ID_FIRST);
        self.command = self.last_id;
        true
    }

    /// The driver sent a command id.
    pub(crate) fn receive(&mut self, id: u32) -> Meaning {
        let was_accepting = std::mem::take(&mut self.accepting);
        match id {
            HINT_CMD_ID_STOP if was_accepting => Meaning::Over,
            id if id >= HINT_CMD_ID_FIRST && id == self.command => {
                self.accepting = true;
                Meaning::Started
            }
            _ => Meaning::Stale,
        }
    }

    /// From here on no hint counts: the sink is to be told, then [`Hinting::announce_done`]. False if there
    /// is no round.
    pub(crate) fn stop(&mut self) -> bool {
        let under_way = self.preparing || self.command >= HINT_CMD_ID_FIRST;
        (self.preparing, self.accepting) = (false, false);
        if under_way {
            self.command = HINT_CMD_ID_STOP;
            self.stopping = true;
        }
        under_way
    }

    /// The sink is told: the driver may have its pages back. False if there is nothing to announce.
    pub(crate) fn announce_done(&mut self) -> bool {
        let stopped = std::mem::take(&mut self.stopping);
        if stopped {
            self.command = HINT_CMD_ID_DONE;
        }
        stopped
    }

    /// The driver is gone.
    pub(crate) fn reset(&mut self) {
        *self = Hinting { last_id: self.last_id, ..Hinting::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_has_its_own_number_and_ends_with_done() {
        let mut hinting = Hinting::default();
        for round in 2..10 {
            hinting.prepare().unwrap();
            assert!(hinting.announce());
            assert_eq!((hinting.command(), hinting.accepts()), (round, false));
            assert_eq!(hinting.prepare(), Err(HintingRefused::UnderWay));
            assert_eq!(hinting.receive(round), Meaning::Started);
            assert_eq!(hinting.receive(0), Meaning::Over);
            assert!(hinting.stop() && hinting.announce_done());
            assert_eq!(hinting.command(), HINT_CMD_ID_DONE);
            assert!(!hinting.stop() && !hinting.announce_done());
        }
    }

    #[test]
    fn commands_of_other_rounds_are_stale() {
        let mut hinting = Hinting::default();
        assert_eq!([0, 1, 2].map(|id| hinting.receive(id)), [Meaning::Stale; 3]);
        hinting.prepare().unwrap();
        hinting.announce();
        assert_eq!([0, 1, 3].map(|id| hinting.receive(id)), [Meaning::Stale; 3], "not started yet");
        assert_eq!(hinting.receive(2), Meaning::Started);
        assert_eq!(hinting.receive(3), Meaning::Stale);
        assert!(!hinting.accepts(), "what follows belongs to no round");
    }

    #[test]
    fn a_reset_while_the_sink_is_told_leaves_nothing_to_announce() {
        let mut hinting = Hinting::default();
        hinting.prepare().unwrap();
        hinting.reset();
        assert!(!hinting.announce());
        hinting.prepare().unwrap();
        assert!(hinting.announce());
    }

    #[test]
    fn numbers_that_mean_something_else_are_skipped() {
        let mut hinting = Hinting { last_id: u32::MAX, ..Hinting::default() };
        hinting.prepare().unwrap();
        hinting.announce();
        assert_eq!(hinting.command(), 2);
    }
}
