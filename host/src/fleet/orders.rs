//! What a guest is told at one tick of the control loop: all of it is one value.
//!
//! Most of it *stands*: a VMM goes by it until it is told otherwise, so it is told once
//! ([`crate::fleet::link`] knows what it was told). The rest is for this tick alone.

use control::{Reclaim, Round, Starved, ToVmm};

/// The memory a guest gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Host memory it may keep, bytes.
    pub allocation_bytes: u64,
    /// Memory it is asked to give up, bytes.
    pub balloon_bytes: u64,
    /// What a page of it in the kernel's swap is charged; see [`control::ToVmm::Allocate`].
    pub kernel_page_price: u16,
}

impl Grant {
    /// As a VMM is told of it.
    pub(crate) fn message(self) -> ToVmm {
        let Grant { allocation_bytes, balloon_bytes, kernel_page_price } = self;
        ToVmm::Allocate { allocation_bytes, balloon_bytes, kernel_page_price }
    }
}

/// See the module's description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Orders {
    /// The memory it gets. Stands, as the next four.
    pub grant: Grant,
    /// What becomes of it if it finds no page.
    pub starved: Starved,
    /// How often its active memory is sampled, ms; 0 for never.
    pub sample_period_ms: u64,
    /// When its pages are evicted.
    pub reclaim: Reclaim,
    /// What is asked of its balloon; nothing new where that was not thought about.
    pub balloon: Option<BalloonOrders>,
    /// Its scanner is to make a pass at full speed now.
    pub hurry: bool,
    /// Its vCPUs are held back for so long now, ms.
    pub hold_ms: Option<u64>,
}

/// What is asked of a guest's balloon, beside memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BalloonOrders {
    /// How often the guest is asked for its statistics, ms. Stands, as the next two.
    pub statistics_interval_ms: u64,
    /// Between two times that pages it reports free are taken, ms.
    pub report_delay_ms: u64,
    /// How many of them are taken at a time.
    pub report_pages_max: u32,
    /// The round in which the guest names free pages is over now.
    pub round_ends: bool,
    /// Another one begins now.
    pub round_begins: bool,
}

/// Orders that stand, each a message of its own; the first is the grant.
pub(crate) const STANDING: usize = 6;

impl Orders {
    /// What stands of them; none where nothing new was decided.
    pub(crate) fn standing(&self) -> [Option<ToVmm>; STANDING] {
        let poll = |balloon: BalloonOrders| ToVmm::PollStatistics { interval_ms: balloon.statistics_interval_ms };
        let take = |balloon: BalloonOrders| ToVmm::TakeReports {
            delay_ms: balloon.report_delay_ms,
            pages_max: balloon.report_pages_max,
        };
        [
            Some(self.grant.message()),
            Some(ToVmm::Starved(self.starved)),
            Some(ToVmm::Sample { period_ms: self.sample_period_ms }),
            Some(ToVmm::Reclaim(self.reclaim)),
            self.balloon.map(poll),
            self.balloon.map(take),
        ]
    }

    /// What is for this tick alone.
    pub(crate) fn momentary(&self) -> impl Iterator<Item = ToVmm> {
        let (ends, begins) = self.balloon.map_or((false, false), |balloon| (balloon.round_ends, balloon.round_begins));
        let hold = self.hold_ms.map(|ms| ToVmm::Hold { ms });
        let round = |is_due: bool, round| is_due.then_some(ToVmm::HintPages(round));
        let hurry = self.hurry.then_some(ToVmm::Hurry);
        [hurry, hold, round(ends, Round::End), round(begins, Round::Begin)].into_iter().flatten()
    }
}
