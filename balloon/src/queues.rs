//! The queues, by name; this file alone knows numbers.
//!
//! 5.5.2 gives each queue a fixed number, and says that some exist only with their feature. Linux and QEMU instead
//! count the queues that exist. So a number is first read as 5.5.2 has it; if that queue does not exist, as Linux has
//! it. Without free page hinting the two never disagree on a number that both use.

use wire::balloon::{F_REPORTING, F_STATS_VQ};

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
    /// Buffers of free memory.
    Reporting,
}

impl BalloonQueue {
    /// The numbers of 5.5.2; 3 is free page hinting, which is not offered.
    const NUMBERED: [Option<BalloonQueue>; QUEUE_COUNT] =
        [Some(Self::Inflate), Some(Self::Deflate), Some(Self::Statistics), None, Some(Self::Reporting)];

    /// The queue that the driver means by `index`, given the features agreed on.
    pub fn at(index: usize, features: u64) -> Option<BalloonQueue> {
        let existing = |queue: &BalloonQueue| queue.exists(features);
        let by_specification = Self::NUMBERED.get(index).copied().flatten().filter(existing);
        by_specification.or_else(|| Self::NUMBERED.into_iter().flatten().filter(existing).nth(index))
    }

    fn exists(self, features: u64) -> bool {
        match self {
            Self::Inflate | Self::Deflate => true,
            Self::Statistics => features & (1 << F_STATS_VQ) != 0,
            Self::Reporting => features & (1 << F_REPORTING) != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reporting_queue_is_found_by_either_numbering() {
        let both = 1 << F_STATS_VQ | 1 << F_REPORTING;
        assert_eq!(BalloonQueue::at(4, both), Some(BalloonQueue::Reporting));
        assert_eq!(BalloonQueue::at(3, both), Some(BalloonQueue::Reporting));
        assert_eq!(BalloonQueue::at(2, both), Some(BalloonQueue::Statistics));
        assert_eq!(BalloonQueue::at(2, 1 << F_REPORTING), Some(BalloonQueue::Reporting));
    }

    #[test]
    fn queues_without_their_feature_do_not_exist() {
        assert_eq!((0..8).filter_map(|index| BalloonQueue::at(index, 0)).count(), 2);
        assert_eq!(BalloonQueue::at(4, 1 << F_STATS_VQ), None);
        assert_eq!(BalloonQueue::at(usize::MAX, u64::MAX), None);
    }
}
