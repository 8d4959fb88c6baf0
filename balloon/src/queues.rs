//! The queues, by name; this file alone knows numbers.
//!
//! 5.5.2 gives each queue a fixed number, and says that some exist only with their feature. Linux and QEMU
//! instead count the queues that exist. Which of the two a driver does shows when it has started: one that
//! sets up a number which 5.5.2 gives to no queue, or to one without its feature, has counted. Where both
//! readings fit, they agree on all numbers in use.

use wire::balloon::{F_FREE_PAGE_HINT, F_REPORTING, F_STATS_VQ};

/// How many queue numbers 5.5.2 gives out.
pub const QUEUE_COUNT: usize = 5;

/// Descriptors a queue may have: QEMU's number, and more than the 32 ranges Linux reports in one chain.
pub const QUEUE_SIZE_MAX: u16 = 128;

/// A queue of the balloon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BalloonQueue {
    /// Page numbers that the guest gives up.
    Inflate,
    /// Page numbers that the guest takes back.
    Deflate,
    /// One buffer of statistics, at home on the device side.
    Statistics,
    /// Command ids, and buffers of memory whose content is not needed.
    Hinting,
    /// Buffers of free memory.
    Reporting,
}

impl BalloonQueue {
    /// What is said of it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            BalloonQueue::Inflate => "inflate",
            BalloonQueue::Deflate => "deflate",
            BalloonQueue::Statistics => "statistics",
            BalloonQueue::Hinting => "hinting",
            BalloonQueue::Reporting => "reporting",
        }
    }
}

/// How a driver numbers its queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Numbering {
    /// As 5.5.2 has it.
    #[default]
    Specified,
    /// Without gaps.
    Counted,
}

impl Numbering {
    /// The numbering of a driver that set up these queues.
    pub(crate) fn of(queues: &[usize], features: u64) -> Numbering {
        let fits = |&index: &usize| BalloonQueue::at(index, features, Numbering::Specified).is_some();
        if queues.iter().all(fits) { Numbering::Specified } else { Numbering::Counted }
    }
}

impl BalloonQueue {
    /// The numbers of 5.5.2.
    const NUMBERED: [BalloonQueue; QUEUE_COUNT] =
        [Self::Inflate, Self::Deflate, Self::Statistics, Self::Hinting, Self::Reporting];

    /// The queue that the driver means by `index`, given the features agreed on.
    pub(crate) fn at(index: usize, features: u64, numbering: Numbering) -> Option<BalloonQueue> {
        let existing = |queue: &BalloonQueue| queue.exists(features);
        match numbering {
            Numbering::Specified => Self::NUMBERED.get(index).copied().filter(existing),
            Numbering::Counted => Self::NUMBERED.into_iter().filter(existing).nth(index),
        }
    }

    fn exists(self, features: u64) -> bool {
        match self {
            Self::Inflate | Self::Deflate => true,
            Self::Statistics => features & (1 << F_STATS_VQ) != 0,
            Self::Hinting => features & (1 << F_FREE_PAGE_HINT) != 0,
            Self::Reporting => features & (1 << F_REPORTING) != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a driver with these features means by `index`, having set up `queues`.
    fn meant(index: usize, queues: &[usize], features: u64) -> Option<BalloonQueue> {
        BalloonQueue::at(index, features, Numbering::of(queues, features))
    }

    #[test]
    fn queues_are_found_by_either_numbering() {
        let (statistics, hinting, reporting) = (1 << F_STATS_VQ, 1 << F_FREE_PAGE_HINT, 1 << F_REPORTING);
        assert_eq!(meant(4, &[0, 1, 2, 4], statistics | reporting), Some(BalloonQueue::Reporting));
        assert_eq!(meant(3, &[0, 1, 2, 3], statistics | reporting), Some(BalloonQueue::Reporting));
        assert_eq!(meant(2, &[0, 1, 2, 3], statistics | reporting), Some(BalloonQueue::Statistics));
        assert_eq!(meant(2, &[0, 1, 2], reporting), Some(BalloonQueue::Reporting));
        assert_eq!(meant(3, &[0, 1, 2, 3], hinting | reporting), Some(BalloonQueue::Reporting), "counted");
        assert_eq!(meant(3, &[0, 1, 3, 4], hinting | reporting), Some(BalloonQueue::Hinting), "specified");
        assert_eq!(meant(3, &[0, 1, 2, 3, 4], u64::MAX), Some(BalloonQueue::Hinting));
    }

    #[test]
    fn queues_without_their_feature_do_not_exist() {
        assert_eq!((0..8).filter(|&index| meant(index, &[0, 1], 0).is_some()).count(), 2);
        assert_eq!(meant(4, &[0, 1, 2], 1 << F_STATS_VQ), None);
        assert_eq!(meant(usize::MAX, &[usize::MAX], u64::MAX), None);
    }
}
