//! What the machine must offer, each with the way out where it does not. `ballast doctor` shows all of them;
//! a run checks the same ones before any guest starts.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::path::Path;

use control::VcpuKind;
use serde::Serialize;
use wire::PAGE_BYTES;

use crate::bytes::ByteCount;
use crate::config::SwapConfig;
use crate::request::machine_memory::memory_bytes;
use crate::request::promises;

/// Areas of a VMM's address space that are not aliases: its stacks, libraries and heap. An estimate with room
/// to grow.
pub const VMA_RESERVE: u32 = 1024;
/// Fewest areas that aliases are worth running with: 4096 alias runs. An estimate.
const VMA_BUDGET_MIN: u32 = 8192;

/// One prerequisite and how it stands.
#[derive(Debug, Serialize)]
pub struct Prerequisite {
    /// Short name.
    pub name: &'static str,
    /// Whether it is there.
    pub ok: bool,
    /// What was found, or what is missing and the way out; one line.
    pub detail: String,
}

/// Least room for swap files that a directory is tried with when no size is given: what one default guest
/// takes.
const SWAP_BYTES_TRIED: u64 = crate::config::MEMORY_BYTES_DEFAULT;

/// Every prerequisite of a run with KVM vCPUs, and with swap files if it is to have some.
pub fn all(swap: Option<&SwapConfig>) -> Vec<Prerequisite> {
    let found = |name, outcome: Result<String, String>| {
        let ok = outcome.is_ok();
        Prerequisite { name, ok, detail: outcome.unwrap_or_else(|missing| missing) }
    };
    let mut all = vec![
        found("kvm", kvm(Path::new("/dev/kvm")).map(|()| "/dev/kvm opens".into())),
        found(
            "userfaultfd",
            userfaultfd().map(|()| "all needed features, and the right to serve kernel faults".into()),
        ),
        found("vm.max_map_count", max_map_count().map(maps_detail)),
        found("open files", crate::request::descriptors::detail()),
        found("memory", memory_bytes().map(memory_detail)),
        found("kernel tier", Ok(crate::tier::detail())),
    ];
    all.extend(swap.map(|swap| found("swap", swap_files(swap))));
    all
}

fn swap_files(swap: &SwapConfig) -> Result<String, String> {
    let bytes = swap.bytes.unwrap_or(SWAP_BYTES_TRIED) / wire::PAGE_BYTES as u64 * wire::PAGE_BYTES as u64;
    let caveat = crate::request::swap::check(&swap.directory, bytes).map_err(|error| error.to_string())?;
    let shown = swap.directory.display();
    Ok(match caveat {
        Some(caveat) => format!("--swap {shown}: {caveat}"),
        None => format!("{shown} has room for {}, past the page cache", ByteCount(bytes)),
    })
}

/// Fails on the first prerequisite that guests of this kind lack.
pub fn require(vcpu: VcpuKind) -> Result<(), String> {
    if vcpu == VcpuKind::Kvm {
        kvm(Path::new("/dev/kvm"))?;
    }
    userfaultfd()?;
    max_map_count()?;
    Ok(())
}

/// Most areas that the aliases of any guest may cost.
pub fn vma_budget_max() -> Result<u32, String> {
    Ok(max_map_count()? - VMA_RESERVE)
}

/// Areas that the aliases of a guest of so many pages may cost unless somebody chose: one for every page, as
/// far as the kernel allows. An area costs some 300 bytes, and an alias, which shares at least one page, two
/// of them.
pub fn vma_budget(guest_pages: u64) -> Result<u32, String> {
    let most = vma_budget_max()?;
    Ok(u32::try_from(guest_pages).unwrap_or(u32::MAX).clamp(VMA_BUDGET_MIN, most))
}

fn kvm(device: &Path) -> Result<(), String> {
    let name = device.display();
    match OpenOptions::new().read(true).write(true).open(device) {
        Ok(_) => Ok(()),
        Err(error) => Err(match error.kind() {
            ErrorKind::NotFound => {
                format!("no {name}: load the module (modprobe kvm_intel or kvm_amd), or run with --vcpu hosted")
            }
            ErrorKind::PermissionDenied => {
                format!("{name}: permission denied; run as root or join the group kvm, or run with --vcpu hosted")
            }
            _ => format!("{name}: {error}; check the KVM module, or run with --vcpu hosted"),
        }),
    }
}

fn userfaultfd() -> Result<(), String> {
    pager::probe().map_err(|error| error.to_string())
}

fn max_map_count() -> Result<u32, String> {
    let path = "/proc/sys/vm/max_map_count";
    let count = fs::read_to_string(path).map_err(|error| format!("{path}: {error}; is /proc mounted?"))?;
    let count = count.trim().parse().map_err(|_| format!("{path} holds {:?}, no number", count.trim()))?;
    enough_maps(count)
}

/// The limit, and the largest guest whose aliases it does not hold back.
fn maps_detail(count: u32) -> String {
    let guest_bytes = u64::from(count - VMA_RESERVE) * PAGE_BYTES as u64;
    format!(
        "{count}: guests of up to {} may use an area for each page; larger ones, and --vma-budget, take more: pages + {}",
        ByteCount::rounded(guest_bytes),
        VMA_RESERVE
    )
}

/// The memory there is, and what other runs have promised of it.
fn memory_detail(bytes: u64) -> String {
    match promises::living().as_slice() {
        [] => ByteCount(bytes).to_string(),
        runs => format!("{}, of which runs have promised: {}", ByteCount(bytes), promises::list(runs)),
    }
}

fn enough_maps(count: u32) -> Result<u32, String> {
    let least = VMA_RESERVE + VMA_BUDGET_MIN;
    if count < least {
        return Err(format!(
            "vm.max_map_count is {count}, at least {least} are needed: sysctl -w vm.max_map_count=65530"
        ));
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_kvm_device_names_itself_and_the_way_out() {
        let missing = kvm(Path::new("/dev/no-such-kvm")).unwrap_err();
        assert!(missing.contains("/dev/no-such-kvm") && missing.contains("--vcpu hosted"), "{missing}");
    }

    #[test]
    fn too_few_maps_name_the_number_and_the_way_out() {
        let missing = enough_maps(1000).unwrap_err();
        assert!(missing.contains("1000") && missing.contains("sysctl"), "{missing}");
        assert_eq!(enough_maps(65530), Ok(65530));
    }

    #[test]
    fn the_budget_for_aliases_leaves_room_for_the_rest_of_the_process() {
        let most = max_map_count().unwrap();
        assert_eq!(vma_budget(1).unwrap(), VMA_BUDGET_MIN);
        assert_eq!(vma_budget(u64::MAX).unwrap(), most - VMA_RESERVE);
    }
}
