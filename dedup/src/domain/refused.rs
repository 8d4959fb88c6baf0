//! Runs of pages that could not be shared for want of address-space areas.

use wire::{Frame, Gfn};

/// How many runs: neighbouring pages whose frames are neighbours, too, would take one area.
#[derive(Debug, Default)]
pub(crate) struct RefusedRuns {
    count: u64,
    /// Where the last of them would go on.
    next: Option<(Gfn, Frame)>,
}

impl RefusedRuns {
    /// A page was refused, whose frame this is.
    pub(crate) fn note(&mut self, gfn: Gfn, frame: Frame) {
        let next = (Gfn(gfn.0.wrapping_add(1)), Frame(frame.0.wrapping_add(1)));
        let goes_on = self.next.replace(next) == Some((gfn, frame));
        self.count += u64::from(!goes_on);
    }

    /// How many there were since this was last asked.
    pub(crate) fn take(&mut self) -> u64 {
        std::mem::take(&mut self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_with_neighbouring_frames_are_one_run() {
        let mut refused = RefusedRuns::default();
        for (gfn, frame) in [(1, 7), (2, 8), (3, 9), (4, 20), (6, 22), (7, 23)] {
            refused.note(Gfn(gfn), Frame(frame));
        }
        assert_eq!((refused.take(), refused.take()), (3, 0));
    }
}
