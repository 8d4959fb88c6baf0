//! The guests' groups: who is in one, what it has there and in zram, and that it keeps to its bound.

use std::sync::{Arc, Mutex, MutexGuard};

use super::bound::{self, Bound, Due};
use super::cgroup::{Group, Groups, Usage};
use super::statistics::Statistics;
use crate::sync::lock;

/// Ticks in a row at which a guest's threads waited before that is said: a second.
const WAITS_SAID: u64 = 10;

/// See the module's description.
#[derive(Debug)]
pub(super) struct Members {
    members: Mutex<Vec<Option<Member>>>,
    /// By guest: the most that is its own, here and swapped out, bytes.
    most_bytes: Vec<u64>,
    // After those who are in them.
    groups: Groups,
}

#[derive(Clone, Debug)]
struct Member {
    group: Arc<Group>,
    bound: Bound,
    figures: Figures,
    /// Ticks in a row at which its threads waited.
    waiting: u64,
}

/// How a guest fares in its group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// What it has in swap by the kernel's books, bytes.
    pub swapped_bytes: u64,
    /// What that takes in zram, bytes.
    pub zram_bytes: u64,
    /// What the kernel charges it, bytes.
    pub charged_bytes: u64,
    /// The most that may be, bytes.
    pub limit_bytes: u64,
    /// Times that it met the limit, and the kernel made room.
    pub hits_total: u64,
    /// Ticks at which its threads waited, as no room could be made.
    pub waits_total: u64,
    /// They wait now.
    pub waits: bool,
}

impl Members {
    /// Of guests that can have so many bytes of their own, and none of which has a VMM yet.
    pub(super) fn new(groups: Groups, most_bytes: Vec<u64>) -> Members {
        Members { groups, members: Mutex::new(vec![None; most_bytes.len()]), most_bytes }
    }

    /// Takes the process of a guest's VMM into the guest's group.
    pub(super) fn admit(&self, guest: usize, pid: u32) -> std::io::Result<()> {
        let group = self.groups.group(&format!("guest{guest}"))?;
        group.enter(pid)?;
        let mut members = self.members();
        let known = members[guest].take().map(|member| (member.bound, member.figures));
        let (bound, figures) = known.unwrap_or_default();
        members[guest] = Some(Member { group: Arc::new(group), bound, figures, waiting: 0 });
        Ok(())
    }

    /// Looks at the groups of guests with these allocations, and sets the limits that are due. The kernel may
    /// make room on this thread.
    pub(super) fn tend(&self, allocations: &[(usize, u64)], statistics: &Statistics) {
        for (guest, member) in self.members().iter_mut().enumerate() {
            if let Some(member) = member.as_mut().filter(|_| !allocations.iter().any(|&(other, _)| other == guest)) {
                // Its process is gone, and what it had with it.
                member.bound.rest();
                member.figures = Figures {
                    hits_total: member.figures.hits_total,
                    waits_total: member.figures.waits_total,
                    ..Figures::default()
                };
            }
        }
        let mut relief_left_bytes = Bound::relief_left_bytes(
            self.most_bytes.len(),
            self.members().iter().flatten().map(|member| &member.bound),
        );
        for &(guest, allocation_bytes) in allocations {
            // Not held while the kernel makes room.
            let Some(mut member) = self.members()[guest].clone() else { continue };
            let tended = member.tend(allocation_bytes, self.most_bytes[guest], statistics, &mut relief_left_bytes);
            if let Err(error) = &tended {
                tracing::warn!(
                    guest,
                    "its memory cgroup was taken away, its VMM's own account bounds it alone: {error}"
                );
            }
            if member.waiting == WAITS_SAID {
                let Figures { charged_bytes, limit_bytes, .. } = member.figures;
                tracing::warn!(
                    guest,
                    charged_bytes,
                    limit_bytes,
                    "no room can be made in its memory cgroup, and it waits"
                );
            }
            self.members()[guest] = tended.ok().map(|()| member);
        }
    }

    /// What is known of a guest, if it has a group.
    pub(super) fn figures(&self, guest: usize) -> Option<Figures> {
        self.members().get(guest)?.as_ref().map(|member| member.figures)
    }

    /// What all guests have in swap by the kernel's books, bytes.
    pub(super) fn swapped_bytes(&self) -> u64 {
        self.members().iter().flatten().map(|member| member.figures.swapped_bytes).sum()
    }

    fn members(&self) -> MutexGuard<'_, Vec<Option<Member>>> {
        // Every critical section leaves the members whole.
        lock(&self.members)
    }
}

impl Member {
    fn tend(
        &mut self,
        allocation_bytes: u64,
        most_bytes: u64,
        statistics: &Statistics,
        relief_left_bytes: &mut u64,
    ) -> std::io::Result<()> {
        let usage = self.group.usage()?;
        let zram_bytes = statistics.share_bytes(usage.swapped_bytes);
        let Usage { swapped_bytes, charged_bytes, hits_total, waits, .. } = usage;
        let mut limit_bytes = usage.limit_bytes;
        let due = Due { most_bytes, allocation_bytes, zram_bytes };
        if let Some(due_bytes) = self.bound.next(&usage, due, relief_left_bytes) {
            match self.group.limit(due_bytes, bound::all_bytes(&usage, most_bytes), charged_bytes) {
                Ok(()) => limit_bytes = due_bytes,
                // What cannot be squeezed now is tried again at the next tick.
                Err(error) => tracing::debug!(due_bytes, charged_bytes, %error, "a limit that cannot be set yet"),
            }
        }
        self.waiting = if waits { self.waiting + 1 } else { 0 };
        let waits_total = self.figures.waits_total + u64::from(waits);
        self.figures =
            Figures { swapped_bytes, zram_bytes, charged_bytes, limit_bytes, hits_total, waits_total, waits };
        Ok(())
    }
}
