//! The device: what was asked for, what was given, and how it is. Its turns of work are in [`crate::turn`].
//!
//! [`Balloon::process`] is called by one device thread at a time; everything else by any thread. The state's
//! lock is a leaf: never held over guest memory, a queue or the sink.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wire::balloon::{F_DEFLATE_ON_OOM, F_FREE_PAGE_HINT, F_MUST_TELL_HOST, F_PAGE_POISON, F_REPORTING, F_STATS_VQ};
use wire::virtio::F_VERSION_1;

use crate::config::{self, Config, Field};
use crate::hinting::{Hinting, HintingRefused};
use crate::queues::Numbering;
use crate::statistics::{Poll, Statistics};
use crate::{BalloonQueue, PageSink, RamLayout};

/// Features offered: all of 5.5.3. A driver that does not accept MUST_TELL_HOST is served too (5.5.3.2: "MAY
/// signal failure"): a page that is touched in the balloon comes back empty, whoever was told.
pub const FEATURES: u64 = 1 << F_VERSION_1
    | 1 << F_MUST_TELL_HOST
    | 1 << F_STATS_VQ
    | 1 << F_DEFLATE_ON_OOM
    | 1 << F_FREE_PAGE_HINT
    | 1 << F_PAGE_POISON
    | 1 << F_REPORTING;

/// The device. Frames go to the [`PageSink`].
#[derive(Debug)]
pub struct Balloon<S> {
    pub(crate) sink: S,
    pub(crate) state: Mutex<BalloonState>,
}

#[derive(Debug, Default)]
pub(crate) struct BalloonState {
    pub(crate) ram: Arc<RamLayout>,
    pub(crate) features: u64,
    pub(crate) numbering: Numbering,
    pub(crate) driver_ok: bool,
    /// The transport has no DRIVER_OK.
    driver_ok_is_a_guess: bool,
    pub(crate) requested_pages: u32,
    /// Little-endian, as the driver writes it, byte by byte if it likes.
    pub(crate) actual_pages: [u8; 4],
    pub(crate) poison_val: [u8; 4],
    pub(crate) counts: Counts,
    pub(crate) statistics: Statistics,
    pub(crate) poll: Poll,
    pub(crate) hinting: Hinting,
}

impl BalloonState {
    pub(crate) fn has(&self, feature: u32) -> bool {
        self.features >> feature & 1 == 1
    }

    /// 5.5.6.6.1: "The driver MUST NOT modify poison_val while the DRIVER_OK bit is set."
    fn may_set_poison(&self) -> bool {
        self.has(F_PAGE_POISON) && (!self.driver_ok || self.driver_ok_is_a_guess)
    }

    /// Pages asked for, and never more than RAM has.
    fn num_pages(&self) -> u32 {
        self.requested_pages.min(self.ram.frames())
    }

    /// What pages that come back are filled with. "If the VIRTIO_BALLOON_F_PAGE_POISON feature has been
    /// negotiated, the device MUST NOT modify the content of a reported page to a value other than
    /// poison_val" (5.5.6.7.2).
    pub(crate) fn fill(&self) -> u32 {
        if self.has(F_PAGE_POISON) { u32::from_le_bytes(self.poison_val) } else { 0 }
    }
}

macro_rules! counts {
    ($($(#[$meaning:meta])* $count:ident)*) => {
        /// What has happened since the device was made. Resets do not touch it.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counts {
            $($(#[$meaning])* pub $count: u64,)*
        }

        impl Counts {
            /// All of them by name.
            pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($count), self.$count),)*].into_iter()
            }
        }
    };
}

counts! {
    /// Pages taken.
    inflated_pages
    /// Pages given back.
    deflated_pages
    /// Pages reported free.
    reported_pages
    /// Pages named in rounds of hinting.
    hinted_pages
    /// Pages of those that were dropped: nobody had written to them since the round began.
    hint_dropped_pages
    /// Pages named outside of rounds: ignored.
    hint_ignored_pages
    /// Rounds of hinting that ended.
    hint_rounds
    /// Answers with statistics.
    statistics
    /// Requests refused, in whole or in part, and nonsense written to the configuration space.
    rejected
}

/// How the balloon is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Pages asked for.
    pub requested_pages: u32,
    /// Pages given, by the driver's own account, and never more than RAM has.
    pub actual_pages: u32,
    /// What has happened so far.
    pub counts: Counts,
    /// A driver is working the device.
    pub driver_ok: bool,
    /// Features agreed on.
    pub features: u64,
    /// `free_page_hint_cmd_id`: 2 or more while the guest is asked for free pages.
    pub hint_command: u32,
    /// What the guest fills free pages with, if it does and said so.
    pub poison: Option<u32>,
    /// How often the guest is asked for statistics, ms; 0 for never.
    pub statistics_interval_ms: u64,
    /// The guest's statistics, `(tag, value)` by tag, unknown tags included; what it did not report is
    /// absent.
    pub statistics: Vec<(u16, u64)>,
}

impl<S: PageSink> Balloon<S> {
    /// A balloon for a guest with this RAM, for instance a number of frames from address 0 on.
    pub fn new(ram: impl Into<RamLayout>, sink: S) -> Self {
        Balloon { sink, state: Mutex::new(BalloonState { ram: Arc::new(ram.into()), ..BalloonState::default() }) }
    }

    /// For transports without DRIVER_OK, where [`Balloon::set_driver_ok`] is a guess: the driver may write
    /// `poison_val` at any time.
    pub fn without_driver_ok(self) -> Self {
        self.state().driver_ok_is_a_guess = true;
        self
    }

    /// The sink.
    pub fn sink(&self) -> &S {
        &self.sink
    }

    /// RAM is elsewhere from now on; for transports that learn of it late. True if the configuration space
    /// changed.
    pub fn set_ram(&self, ram: RamLayout) -> bool {
        let mut state = self.state();
        let before = state.num_pages();
        state.ram = Arc::new(ram);
        state.num_pages() != before
    }

    /// Asks for `pages`, or for all there are. True if the configuration space changed, of which the driver
    /// is to be told.
    pub fn set_requested_pages(&self, pages: u32) -> bool {
        let mut state = self.state();
        let before = state.num_pages();
        state.requested_pages = pages;
        state.num_pages() != before
    }

    /// How often to ask for statistics from now on, ms; 0 for never.
    pub fn set_statistics_interval_ms(&self, interval_ms: u64) {
        self.state().poll.set_interval_ms(interval_ms);
    }

    /// Wishes for fresh statistics if it is time, `now_ms` by any clock that does not go back: the next
    /// [`Balloon::process`] of the statistics queue asks the driver. Whether it was time.
    pub fn poll_statistics(&self, now_ms: u64) -> bool {
        let mut state = self.state();
        let due = state.poll.is_due(now_ms);
        if due {
            state.statistics.request();
        }
        due
    }

    /// Begins a round of hinting: from the return of this on, the sink knows what is written.
    /// [`Balloon::announce_hinting`] comes next.
    ///
    /// # Errors
    /// The driver cannot hint, or does already.
    pub fn begin_hinting(&self) -> Result<(), HintingRefused> {
        {
            let mut state = self.state();
            if !state.has(F_FREE_PAGE_HINT) || !state.driver_ok {
                return Err(HintingRefused::NotNegotiated);
            }
            state.hinting.prepare()?;
        }
        self.sink.watch();
        Ok(())
    }

    /// Shows the driver the new round's command id. True if the configuration space changed, of which the
    /// driver is to be told; false after a reset since [`Balloon::begin_hinting`].
    pub fn announce_hinting(&self) -> bool {
        self.state().hinting.announce()
    }

    /// Ends the round of hinting under way: no page is dropped once this has returned.
    /// [`Balloon::announce_done`] comes next.
    pub fn end_hinting(&self) {
        if self.state().hinting.stop() {
            self.sink.unwatch();
        }
    }

    /// Lets the driver have its hinted pages back. True if the configuration space changed.
    pub fn announce_done(&self) -> bool {
        let mut state = self.state();
        let done = state.hinting.announce_done();
        state.counts.hint_rounds += u64::from(done);
        done
    }

    /// How the balloon is.
    pub fn status(&self) -> Status {
        let state = self.state();
        Status {
            requested_pages: state.num_pages(),
            actual_pages: u32::from_le_bytes(state.actual_pages).min(state.ram.frames()),
            counts: state.counts,
            driver_ok: state.driver_ok,
            features: state.features,
            hint_command: state.hinting.command(),
            poison: state.has(F_PAGE_POISON).then(|| u32::from_le_bytes(state.poison_val)),
            statistics_interval_ms: state.poll.interval_ms(),
            statistics: state.statistics.values().to_vec(),
        }
    }

    /// Driver and device have agreed on `features`.
    pub fn set_features(&self, features: u64) {
        self.state().features = features;
    }

    /// The driver has started, with these queues set up.
    pub fn set_driver_ok(&self, queues: &[usize]) {
        let mut state = self.state();
        state.numbering = Numbering::of(queues, state.features);
        state.driver_ok = true;
    }

    /// The driver is gone, and its buffers and statements with it. What the host asked for and counted stays.
    pub fn reset(&self) {
        let mut state = self.state();
        state.features = 0;
        state.driver_ok = false;
        state.numbering = Numbering::default();
        (state.actual_pages, state.poison_val) = ([0; 4], [0; 4]);
        state.statistics = Statistics::default();
        // The sink may still watch pages; that costs a fault for each that is written, and the next round
        // begins with it.
        state.hinting.reset();
    }

    /// The queue that the driver means by `index`.
    pub fn queue_at(&self, index: usize) -> Option<BalloonQueue> {
        let state = self.state();
        BalloonQueue::at(index, state.features, state.numbering)
    }

    /// Reads the configuration space (5.5.4); what lies behind it reads 0.
    pub fn read_config(&self, offset: u64, data: &mut [u8]) {
        let config = {
            let state = self.state();
            // 5.5.4: free_page_hint_cmd_id and poison_val are there if their features were agreed on.
            Config {
                num_pages: state.num_pages(),
                actual: state.actual_pages,
                free_page_hint_cmd_id: if state.has(F_FREE_PAGE_HINT) { state.hinting.command() } else { 0 },
                poison_val: if state.has(F_PAGE_POISON) { state.poison_val } else { [0; 4] },
            }
        };
        config.read(offset, data);
    }

    /// Writes the configuration space, where it is the driver's; everything else is refused and counted.
    pub fn write_config(&self, offset: u64, data: &[u8]) {
        let mut state = self.state();
        match config::written(offset, data.len()) {
            Some((Field::Actual, bytes)) => state.actual_pages[bytes].copy_from_slice(data),
            Some((Field::PoisonVal, bytes)) if state.may_set_poison() => {
                state.poison_val[bytes].copy_from_slice(data);
            }
            _ => state.counts.rejected += 1,
        }
    }

    /// Every change of the state is whole, so a panic elsewhere leaves nothing half done in it.
    pub(crate) fn state(&self) -> MutexGuard<'_, BalloonState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
