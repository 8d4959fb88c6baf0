//! The kernel tier: a zram device that private pages of guests go out to, by the kernel's hands, and come
//! back from without us.
//!
//! It is there while this value is, and with it goes all that it made. What a killed host left, the next
//! start takes down. Without root or zram a run goes on as if there were no such thing.

mod device;
mod header;
mod owner;
mod programs;
mod statistics;

use std::fs;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};

use control::{KERNEL_PAGE_PRICE_UNMEASURED, WHOLE_PAGE_PRICE};
use wire::PAGE_BYTES;

use self::device::Device;
use self::owner::Owner;

/// The least that a device takes: smaller ones are not worth their upkeep.
const BYTES_MIN: u64 = 64 << 20;

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
    /// The kernel swaps to it no more.
    lost: AtomicBool,
}

impl Tier {
    /// The tier of guests with so much RAM together, and what is to be said of it, in a line each. An error
    /// says why there can be none where one is wanted.
    pub fn start(choice: &TierChoice, guests_bytes: u64) -> Result<(Option<Tier>, Vec<String>), String> {
        let given = match choice {
            TierChoice::Off => return Ok((None, Vec::new())),
            TierChoice::Auto => None,
            TierChoice::On(path) => Some(path.as_path()),
        };
        let bytes = guests_bytes.next_multiple_of(PAGE_BYTES as u64).max(BYTES_MIN);
        let made = available().and_then(|()| Device::make(bytes, given, Owner::of_this_process()?));
        match made {
            Ok(device) => {
                let mut notes = vec![format!("kernel tier on {}; --kernel-tier off for none", device.node().display())];
                notes.extend(caveat());
                Ok((Some(Tier { device, lost: AtomicBool::new(false) }), notes))
            }
            Err(why) if given.is_none() => Ok((None, vec![format!("no kernel tier: {why}")])),
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
            Ok(statistics) => statistics.page_price(),
            Err(error) => {
                tracing::debug!("{error}");
                KERNEL_PAGE_PRICE_UNMEASURED
            }
        }
    }

    /// Says once that an operator has taken the device out of use.
    fn look_for_loss(&self) {
        if self.device.is_in_use() == Ok(false) && !self.lost.swap(true, Ordering::Relaxed) {
            tracing::warn!("{} is swap no more: the run goes on without a kernel tier", self.device.node().display());
        }
    }
}

/// Whether there can be a kernel tier here, and how well it would do; for `ballast doctor`.
pub fn detail() -> String {
    match available() {
        Ok(()) => caveat().unwrap_or_else(|| "zram can be added, and util-linux takes it into use".into()),
        Err(why) => format!("none here, runs go without: {why}"),
    }
}

fn available() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("only root may add a zram device".into());
    }
    device::probe()
}

/// A setting of the whole machine that slows the tier down. It is not ours to change.
fn caveat() -> Option<String> {
    let path = "/proc/sys/vm/page-cluster";
    let cluster = fs::read_to_string(path).ok()?.trim().parse::<u32>().ok().filter(|&cluster| cluster > 0)?;
    let pages = 1u64 << cluster.min(16);
    Some(format!(
        "vm.page-cluster is {cluster}: the kernel may bring {pages} pages back for each that is asked for; sysctl -w vm.page-cluster=0"
    ))
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
