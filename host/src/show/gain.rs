//! What sharing is worth, by domain and by what it took, and what is left on the table.
//!
//! References are counted by VMM and frame. Of a domain's shared pages, those beyond the first of a guest
//! that has the frame are saved *within* that guest: it would save them in a domain of its own. Those first
//! ones beyond the first guest are saved *across*:
//!
//! ```text
//!   zero     pages that were touched and are zero again
//!   within   shared pages − (VMM, frame) pairs
//!   across   (VMM, frame) pairs − frames held                 sum: zero + shared pages − frames held
//! ```
//!
//! A frame that a guest needs for patches alone counts as one that it has once the guest was asked about it,
//! so that the split is off by such frames, and the sum is not: there are no more frames and pairs than
//! shared pages.
//!
//! Other frames (just published, about to be released, held for patches alone) are no part of it: they are
//! shown as *idle*.

use control::explain::{REASONS, unmerged};
use serde::Serialize;
use wire::PAGE_BYTES;

use crate::fleet::domains::DomainView;
use crate::fleet::guest::View;

const PAGE: u64 = PAGE_BYTES as u64;
/// Areas that one run of aliases costs at most: its own, and the rest of the one it is cut out of.
const AREAS_PER_RUN: u64 = 2;

/// What a domain's guests do not cost, net of the frames they share, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Gain {
    /// By zero pages.
    pub zero: u64,
    /// By equal pages of one guest.
    pub within_guest: u64,
    /// By equal pages of different guests.
    pub across_guests: u64,
}

/// A domain and what it is worth.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DomainGain {
    /// Unique in the run.
    pub name: String,
    /// Guests in it.
    pub guests: u64,
    /// Memory of its frame store, bytes.
    pub frames_bytes: u64,
    /// Part of it that no page shares, bytes.
    pub idle_frames_bytes: u64,
    /// What is not needed because of it.
    pub gain_bytes: Gain,
    /// What would be needed if every shared page were written to, bytes.
    pub cow_full_bytes: u64,
    /// What is expected to be needed before the host has reacted; see [`crate::control::cow`].
    pub cow_expected_bytes: u64,
}

impl DomainGain {
    /// The living domains' gains.
    pub fn of(views: &[View], domains: &[DomainView]) -> Vec<DomainGain> {
        let gain = |domain: &DomainView| {
            let members = || views.iter().filter(|view| view.domain == domain.name && !view.has_ended());
            let sum = |figure: fn(&View) -> u64| members().map(figure).sum::<u64>();
            let figures = &domain.figures;
            let shared = sum(|view| view.status.pager.pages.shared);
            let (holds, held) = (figures.holds.min(shared), figures.frames_held.min(shared));
            DomainGain {
                name: domain.name.clone(),
                guests: domain.guests,
                frames_bytes: figures.allocated_bytes,
                idle_frames_bytes: figures.allocated_bytes.saturating_sub(held * PAGE),
                gain_bytes: Gain {
                    zero: sum(|view| view.status.pager.zero_touched) * PAGE,
                    within_guest: (shared - holds) * PAGE,
                    across_guests: holds.saturating_sub(held) * PAGE,
                },
                cow_full_bytes: shared * PAGE,
                cow_expected_bytes: sum(|view| view.cow_expected_bytes),
            }
        };
        domains.iter().map(gain).collect()
    }
}

/// Pages of one guest that are not merged, by reason.
pub type Unmerged = [(&'static str, u64); REASONS.len()];

/// Why a guest's pages are not merged.
pub fn unmerged_pages(view: &View) -> Unmerged {
    unmerged(&view.status)
}

/// Address-space areas with which everything would have been shared that was refused for want of them; at
/// most.
pub fn areas_wanted(view: &View) -> u64 {
    let dedup = &view.status.dedup;
    let runs = if dedup.unmerged.vma_budget > 0 { dedup.vma_refused_runs } else { 0 };
    dedup.vmas + AREAS_PER_RUN * runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use control::GuestStatus;
    use dedup::Figures;

    fn view(domain: &str, shared: u64, zero_touched: u64) -> View {
        let mut status = GuestStatus::default();
        status.pager.pages.shared = shared;
        status.pager.zero_touched = zero_touched;
        View { domain: domain.into(), cow_expected_bytes: 8192, ..View::running("guest0", status) }
    }

    #[test]
    fn a_gain_splits_into_zero_within_and_across_and_counts_no_other_domain() {
        // Two guests: one has frame A three times, the other A once and B twice. C is held by nobody.
        let figures =
            Figures { frames_held: 2, holds: 3, allocated_bytes: 3 * PAGE, frames_in_use: 3, ..Figures::default() };
        let domain = DomainView { name: "web".into(), guests: 2, figures };
        let views = [view("web", 3, 5), view("web", 3, 0), view("db", 100, 100)];
        let [gain] = DomainGain::of(&views, &[domain]).try_into().unwrap();
        let expected = Gain { zero: 5 * PAGE, within_guest: 3 * PAGE, across_guests: PAGE };
        assert_eq!((gain.gain_bytes, gain.idle_frames_bytes), (expected, PAGE));
        assert_eq!((gain.cow_full_bytes, gain.cow_expected_bytes), (6 * PAGE, 16384));
    }

    #[test]
    fn frames_that_are_held_for_patches_alone_are_no_gain_and_the_sum_stays_right() {
        // Three pages share two frames; two more frames are held by both guests for patches.
        let figures =
            Figures { frames_held: 4, holds: 7, allocated_bytes: 4 * PAGE, frames_in_use: 4, ..Figures::default() };
        let domain = DomainView { name: "web".into(), guests: 2, figures };
        let [gain] = DomainGain::of(&[view("web", 2, 0), view("web", 1, 0)], &[domain]).try_into().unwrap();
        let Gain { zero, within_guest, across_guests } = gain.gain_bytes;
        assert_eq!((zero, within_guest + across_guests + 4 * PAGE), (0, 3 * PAGE + gain.idle_frames_bytes));
    }

    #[test]
    fn areas_are_wanted_while_pages_are_refused_for_want_of_them() {
        let mut view = view("web", 0, 0);
        view.status.dedup.vmas = 1000;
        view.status.dedup.vma_refused_runs = 50;
        assert_eq!(areas_wanted(&view), 1000);
        view.status.dedup.unmerged.vma_budget = 77;
        assert_eq!(areas_wanted(&view), 1100);
    }
}
