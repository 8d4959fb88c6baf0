//! The kernel tier: a zram device that private pages of guests go out to, by the kernel's hands, and come
//! back from without us; and memory control groups, which bound what comes back.
//!
//! ```text
//!   zram device ── mm_stat ──► what a page away is charged ──► ledger ──► VMMs
//!        ▲                                        what guests' pages take ──► used memory
//!        │ pages
//!   a group for each VMM ◄── limit: its allocation, less its part of zram ── the control loop, each tick
//! ```
//!
//! * `device`: the device, from its making until it is taken down; `header` is its first page, `programs`
//!   switch swap.
//! * `statistics`: what it takes, and whose that is.
//! * `cgroup`: groups, by the kernel's two interfaces; `members` and `bound`: the guests' groups, and what
//!   they are limited to.
//! * `owner`: whose all that is, which is how leftovers are known.
//!
//! The tier is there while this value is, and with it goes all that it made. What a killed host left, the
//! next start takes down. Without root, zram or cgroups a run goes on as if there were no such thing.

mod bound;
mod cgroup;
mod device;
mod header;
mod members;
mod owner;
mod programs;
mod statistics;

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use control::{KERNEL_PAGE_PRICE_UNMEASURED, WHOLE_PAGE_PRICE};
use wire::PAGE_BYTES;

pub(crate) use self::cgroup::GROUP_FILES;
pub use self::members::Figures;

use self::cgroup::Groups;
use self::device::Device;
use self::members::Members;
use self::owner::Owner;
use self::statistics::Statistics;
use crate::request::overhead;
use crate::sync::lock;

/// The least that a device takes: smaller ones are not worth their upkeep.
const BYTES_MIN: u64 = 64 << 20;

/// A device is full when it has room for less than one in so many of its pages, and has room again when for
/// more than one in so many.
const FULL_DIVISOR: u64 = 64;
const ROOMY_DIVISOR: u64 = 16;

/// A device is compacted for no more than one part in so many of the time: pages wait for it meanwhile, some
/// 50 ms where there are gigabytes of them.
const COMPACT_DIVISOR: u32 = 1000;

/// Whether private pages may go out to the kernel's swap.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum TierChoice {
    /// Not at all.
    #[default]
    Off,
    /// To a zram device of our own, where that can be made.
    Auto,
    /// To this zram device, which nobody uses, or nothing starts.
    On(PathBuf),
}

impl FromStr for TierChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(TierChoice::Auto),
            "off" => Ok(TierChoice::Off),
            _ if text.starts_with("/dev/") => Ok(TierChoice::On(text.into())),
            _ => Err("give auto, off, or a zram device that nobody uses, like /dev/zram1".into()),
        }
    }
}

/// See the module's description.
#[derive(Debug)]
pub struct Tier {
    device: Device,
    // Groups go after what their processes have in the device.
    members: Members,
    /// The kernel swaps to the device no more.
    lost: AtomicBool,
    /// It has no room.
    full: AtomicBool,
    /// The guests' groups are being looked at.
    tending: AtomicBool,
    /// When the device may be compacted again.
    compactable_at: Mutex<Instant>,
}

/// The device at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceView {
    /// Pages in it, bytes.
    pub stored_bytes: u64,
    /// Pages that it still takes, bytes.
    pub room_bytes: u64,
    /// Memory that guests' pages take in it, bytes.
    pub guests_bytes: u64,
    /// The same of pages of others, which the kernel has put there, bytes.
    pub others_bytes: u64,
}

impl Tier {
    /// The tier of guests with so much RAM each, and a line to be said of it. An error says
    /// why there can be none where one is wanted.
    pub fn start(choice: &TierChoice, guests_bytes: &[u64]) -> Result<(Option<Tier>, Option<String>), String> {
        let given = match choice {
            TierChoice::Off => return Ok((None, None)),
            TierChoice::Auto => None,
            TierChoice::On(path) => Some(path.as_path()),
        };
        let bytes = guests_bytes.iter().sum::<u64>().next_multiple_of(PAGE_BYTES as u64).max(BYTES_MIN);
        let make = || {
            available()?;
            let owner = Owner::of_this_process()?;
            let groups = Groups::make(owner)?;
            let most_bytes = guests_bytes.iter().map(|&bytes| overhead::ample_bytes(bytes)).collect();
            Ok((Device::make(bytes, given, owner)?, Members::new(groups, most_bytes)))
        };
        match make() {
            Ok((device, members)) => {
                let note = format!("kernel tier on {}; --kernel-tier off for none", device.node().display());
                let [lost, full, tending] = [false; 3].map(AtomicBool::new);
                let compactable_at = Mutex::new(Instant::now());
                Ok((Some(Tier { device, members, lost, full, tending, compactable_at }), Some(note)))
            }
            Err(why) if given.is_none() => Ok((None, Some(format!("no kernel tier: {why}")))),
            Err(why) => Err(why),
        }
    }
}

impl Tier {
    /// What a page away is charged from now on; see [`control::ToVmm::Allocate`].
    pub fn page_price(&self) -> u16 {
        self.look_for_loss();
        if self.lost.load(Ordering::Relaxed) {
            // Nothing is won by a page that has nowhere to go.
            return WHOLE_PAGE_PRICE;
        }
        match self.device.statistics() {
            Ok(statistics) => {
                self.look_for_room(statistics);
                statistics.page_price()
            }
            Err(error) => {
                tracing::debug!("{error}");
                KERNEL_PAGE_PRICE_UNMEASURED
            }
        }
    }

    /// Takes the process of a guest's VMM into the guest's group; whether it may use the tier. To be called
    /// before it is told anything.
    pub fn admit(&self, guest: usize, pid: u32) -> bool {
        let admitted = self.members.admit(guest, pid);
        if let Err(error) = &admitted {
            tracing::warn!(guest, %error, "no memory cgroup for its VMM, which goes without the kernel tier");
        }
        admitted.is_ok()
    }

    /// Looks at the groups of these guests, and limits them by their allocations; nothing, while that still
    /// goes on from the last time. The kernel may make room meanwhile, so not on this thread.
    pub fn tend(self: &Arc<Self>, allocations: Vec<(usize, u64)>) {
        if self.tending.swap(true, Ordering::Acquire) {
            return;
        }
        let tier = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            let statistics = tier.device.statistics().unwrap_or_default();
            tier.members.tend(&allocations, &statistics);
            tier.compact(statistics);
            // Pairs with the swap above: whoever tends next sees what was found.
            tier.tending.store(false, Ordering::Release);
        });
    }

    /// Compacts a device that wastes memory, if that did not take much time lately.
    fn compact(&self, statistics: Statistics) {
        let (mut compactable_at, begun) = (lock(&self.compactable_at), Instant::now());
        if begun >= *compactable_at && statistics.is_wasteful() {
            let _ = self.device.compact().inspect_err(|error| tracing::debug!("{error}"));
            *compactable_at = Instant::now() + begun.elapsed() * COMPACT_DIVISOR;
        }
    }

    /// How a guest fares in its group, if it is in one.
    pub fn figures(&self, guest: usize) -> Option<Figures> {
        self.members.figures(guest)
    }

    /// The device as it is now; nothing of one that cannot be read.
    pub fn view(&self) -> DeviceView {
        let statistics = self.device.statistics().unwrap_or_default();
        let guests_bytes = statistics.share_bytes(self.members.swapped_bytes());
        DeviceView {
            stored_bytes: statistics.stored_bytes,
            room_bytes: statistics.room_bytes(self.device.capacity_bytes()),
            guests_bytes,
            others_bytes: statistics.used_bytes - guests_bytes,
        }
    }

    /// What so many guests may have above their allocations: set aside from the budget.
    pub fn slack_bytes(&self, guests: usize) -> u64 {
        bound::above_bytes(guests)
    }

    /// Says once that an operator has taken the device out of use.
    fn look_for_loss(&self) {
        if self.device.is_in_use() == Ok(false) && !self.lost.swap(true, Ordering::Relaxed) {
            tracing::warn!("{} is swap no more: the run goes on without a kernel tier", self.device.node().display());
        }
    }

    /// Says when the device is full, and when it is so no more.
    fn look_for_room(&self, statistics: Statistics) {
        let (node, capacity_bytes) = (self.device.node(), self.device.capacity_bytes());
        let room_bytes = statistics.room_bytes(capacity_bytes);
        if room_bytes < capacity_bytes / FULL_DIVISOR && !self.full.swap(true, Ordering::Relaxed) {
            tracing::warn!("{} has no room: pages go elsewhere, or stay in memory", node.display());
        } else if room_bytes > capacity_bytes / ROOMY_DIVISOR && self.full.swap(false, Ordering::Relaxed) {
            tracing::info!("{} has room again", node.display());
        }
    }
}

/// Whether there can be a kernel tier here; for `ballast doctor`.
pub fn detail() -> String {
    match available() {
        Ok(()) => "zram, memory cgroups and util-linux are there".into(),
        Err(why) => format!("none here, runs go without: {why}"),
    }
}

fn available() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("only root may add a zram device".into());
    }
    device::probe().and_then(|()| cgroup::probe())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_auto_off_or_a_device() {
        assert_eq!("auto".parse(), Ok(TierChoice::Auto));
        assert_eq!("off".parse(), Ok(TierChoice::Off));
        assert_eq!("/dev/zram3".parse(), Ok(TierChoice::On("/dev/zram3".into())));
        assert!("on".parse::<TierChoice>().unwrap_err().contains("auto, off"));
    }
}
