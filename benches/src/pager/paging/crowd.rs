//! Many guests on plain memory, each a process of its own, all in one memory cgroup with zram behind it,
//! their equal pages merged by ksmd.
//!
//! ```text
//!   cgroup's limit = budget - what zram takes, set every few ms
//!     guest 0, guest 1, ...  MADV_MERGEABLE --> ksmd
//!        └───────── reclaimed ───────────────> zram (nobody is charged for it, hence the subtraction)
//! ```

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::pager::paging::{cgroup::Cgroup, peer::Process, spec::Spec, swap::Swap};
use crate::{
    kit::{
        error::Error,
        ksm::{Mode, Settings},
    },
    pager::paging::waits::Waits,
};

/// How often the cgroup is held at what it may have.
const HOLD: Duration = Duration::from_millis(5);

/// What they did together.
#[derive(Clone, Copy, Debug)]
pub struct Crowd {
    /// Latencies while measuring.
    pub waits: Waits,
    /// Most memory they took once they were held to their budget, zram's own included, bytes; none where
    /// nobody counts.
    pub used_bytes: Option<f64>,
}

/// Guests who have all they need: no cgroup, no zram, no ksmd.
pub fn ample(specs: &[Spec]) -> Result<Crowd, Error> {
    Ok(Crowd { waits: work(specs, &AtomicBool::new(false))?, used_bytes: None })
}

/// Guests in `budget_bytes` once all of them have been filled for `merge`. KSM's settings are as they were
/// afterwards, zram and cgroup are gone.
///
/// Until then ksmd never sleeps: how much it may merge is not to hang on how fast it is told to look.
pub fn in_budget(specs: &[Spec], budget_bytes: u64, merge: Duration) -> Result<Crowd, Error> {
    let ram_bytes = specs.iter().map(|spec| 2 * u64::from(spec.working_set_pages) * pager::PAGE_BYTES as u64).sum();
    let ksm = Settings::take(Mode::Unthrottled)?;
    let zram = Swap::zram(ram_bytes)?;
    let cgroup = Cgroup::new()?;
    let specs: Vec<_> =
        specs.iter().map(|spec| Spec { cgroup: Some(cgroup.members()), mergeable: true, ..spec.clone() }).collect();
    ksm.run(true)?;
    let (filled, done) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let hold = scope.spawn(|| {
            while !filled.load(Ordering::Relaxed) && !done.load(Ordering::Relaxed) {
                thread::sleep(HOLD);
            }
            let filled_at = Instant::now();
            let (mut used_bytes, mut is_calm) = (0, false);
            while !done.load(Ordering::Relaxed) {
                thread::sleep(HOLD);
                if filled_at.elapsed() < merge {
                    continue;
                }
                if !std::mem::replace(&mut is_calm, true) {
                    ksm.calm()?;
                }
                let zram_bytes = zram.memory_bytes();
                cgroup.hold(budget_bytes.saturating_sub(zram_bytes))?;
                used_bytes = used_bytes.max(cgroup.usage_bytes()? + zram_bytes);
            }
            Ok::<_, Error>(used_bytes)
        });
        let waits = work(&specs, &filled);
        done.store(true, Ordering::Relaxed);
        let used_bytes = hold.join().map_err(|_| Error::Guest("holding a cgroup panicked".to_owned()))??;
        Ok(Crowd { waits: waits?, used_bytes: Some(used_bytes as f64) })
    })
}

fn work(specs: &[Spec], filled: &AtomicBool) -> Result<Waits, Error> {
    let mut guests = specs.iter().map(Process::start).collect::<Result<Vec<_>, _>>()?;
    for guest in &mut guests {
        guest.line()?;
        guest.say("fill")?;
    }
    for guest in &mut guests {
        guest.line()?;
    }
    filled.store(true, Ordering::Relaxed);
    guests.iter_mut().try_for_each(|guest| guest.say("go"))?;
    let mut waits = Waits::default();
    for guest in &mut guests {
        let outcome = guest.outcome()?;
        if outcome.corrupt_pages > 0 {
            return Err(Error::Guest(format!("{} pages of a guest are wrong", outcome.corrupt_pages)));
        }
        waits.add(&outcome.waits);
    }
    Ok(waits)
}
