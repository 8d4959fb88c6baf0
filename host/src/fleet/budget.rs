//! The budget of a run, which may be changed while it lasts.
//!
//! ```text
//!   change(more)   in force at once
//!   change(less)   in force at once for what is given; use is judged by the old one for GRACE more,
//!                  because memory has to be evicted first
//!
//!   budget      ────────┐ 768                                      use above the dotted line is a failure
//!                       └──────────────────── 512
//!   judged by   ··················· 768
//!                                  ·········· 512
//!                       |-- GRACE -|
//! ```
//!
//! A budget may be lowered further than guests can be squeezed. Then use is judged by what the ledger has in
//! force ([`Budget::exceed_to`]), which never grows above what there was before.

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::sync::lock;

/// How long use may stay above a budget that was lowered. A VMM evicts 200 MiB a second and more; a swap file
/// on a slow disk takes 20.
pub const GRACE: Duration = Duration::from_secs(30);

/// See the module's description.
#[derive(Debug)]
pub struct Budget {
    state: Mutex<BudgetHistory>,
}

#[derive(Debug)]
struct BudgetHistory {
    bytes: u64,
    /// Larger budgets that use is judged by until then.
    former: Vec<(u64, Instant)>,
    /// What is in force.
    in_force_bytes: u64,
    /// The sample that was furthest above what it was judged by: what was used, and of what.
    excess: Option<(u64, u64)>,
}

impl Budget {
    /// A budget in force from now on.
    pub fn new(bytes: u64) -> Budget {
        Budget { state: Mutex::new(BudgetHistory { bytes, former: Vec::new(), in_force_bytes: 0, excess: None }) }
    }

    /// In force, bytes.
    pub fn bytes(&self) -> u64 {
        self.state().bytes
    }

    /// Another one is in force from now on. What it was.
    pub fn change(&self, bytes: u64, now: Instant) -> u64 {
        let mut state = self.state();
        let before = std::mem::replace(&mut state.bytes, bytes);
        // Those that no longer count, or never will again, go: what is left is a descending few.
        state.former.retain(|&(former, until)| until > now && former > before.max(bytes));
        if before > bytes {
            state.former.push((before, now + GRACE));
        }
        before
    }

    /// So much is in force from now on: use may be as much, even if a budget that was lowered is less.
    pub fn exceed_to(&self, in_force_bytes: u64) {
        self.state().in_force_bytes = in_force_bytes;
    }

    /// So much was found to be in use.
    pub fn judge(&self, used_bytes: u64, now: Instant) {
        let mut state = self.state();
        state.former.retain(|&(_, until)| until > now);
        let judged_by =
            state.former.iter().map(|&(bytes, _)| bytes).fold(state.bytes.max(state.in_force_bytes), u64::max);
        let excess = |(used, budget): (u64, u64)| used.saturating_sub(budget);
        if used_bytes > judged_by && excess((used_bytes, judged_by)) > state.excess.map_or(0, excess) {
            state.excess = Some((used_bytes, judged_by));
        }
    }

    /// The sample that was furthest above its budget, with that budget.
    pub fn excess(&self) -> Option<(u64, u64)> {
        self.state().excess
    }

    fn state(&self) -> MutexGuard<'_, BudgetHistory> {
        lock(&self.state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn use_is_judged_by_the_larger_budget_until_the_grace_is_over() {
        let (budget, start) = (Budget::new(768), Instant::now());
        budget.judge(768, start);
        assert_eq!(budget.change(512, start), 768);
        budget.judge(768, start + GRACE / 2);
        assert_eq!((budget.bytes(), budget.excess()), (512, None));
        budget.judge(512, start + GRACE);
        assert_eq!(budget.excess(), None);
        budget.judge(513, start + GRACE);
        budget.judge(600, start + GRACE);
        budget.judge(550, start + GRACE);
        assert_eq!(budget.excess(), Some((600, 512)));
    }

    #[test]
    fn what_guests_cannot_be_squeezed_below_is_no_excess_and_what_is_above_that_is() {
        let (budget, start) = (Budget::new(768), Instant::now());
        budget.change(400, start);
        budget.exceed_to(500);
        budget.judge(500, start + GRACE);
        assert_eq!(budget.excess(), None);
        budget.judge(501, start + GRACE);
        assert_eq!(budget.excess(), Some((501, 500)));
    }

    #[test]
    fn each_lower_budget_has_its_own_grace_and_a_larger_one_ends_none() {
        let (budget, start) = (Budget::new(768), Instant::now());
        let later = |seconds| start + Duration::from_secs(seconds);
        budget.change(600, start);
        budget.change(500, later(10));
        budget.change(550, later(20));
        budget.judge(700, later(29));
        budget.judge(600, later(39));
        assert_eq!(budget.excess(), None);
        budget.judge(560, later(41));
        assert_eq!(budget.excess(), Some((560, 550)));
    }

    #[test]
    fn a_budget_that_is_changed_for_ever_remembers_few() {
        let (budget, start) = (Budget::new(100), Instant::now());
        for change in 0..1000 {
            budget.change(if change % 2 == 0 { 50 } else { 100 }, start);
        }
        assert!(budget.state().former.len() <= 2, "{budget:?}");
    }
}
