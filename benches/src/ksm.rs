//! ksmd's side: plain anonymous memory with `MADV_MERGEABLE`, and the daemon without its throttle.

use std::{
    ffi::c_void,
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    ptr::{self, NonNull},
    thread,
    time::{Duration, Instant},
};

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};
use pager::PAGE_BYTES;

use crate::{
    dedup_bench::Side,
    error::Error,
    scenario::{Scenario, content},
};

/// KSM's switches and counters.
const DIRECTORY: &str = "/sys/kernel/mm/ksm";
/// Settings that are put back at the end, in this order.
const SETTINGS: [&str; 5] = ["run", "sleep_millisecs", "pages_to_scan", "smart_scan", "advisor_mode"];
/// How often the daemon's progress is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// ksmd merges a page on its second visit at the earliest; after so many whole scans without a gain, nothing more comes.
const BARREN_SCANS: u64 = 3;
/// The longest a scenario may take.
const LIMIT: Duration = Duration::from_secs(300);
/// Bytes of kernel memory for each scanned page: a `ksm_rmap_item` (`mm/ksm.c`).
pub const METADATA_BYTES: u64 = 64;

fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

fn read(name: &str) -> Result<String, Error> {
    fs::read_to_string(path(name)).map_err(|source| Error::File { path: path(name), source })
}

fn number(name: &str) -> Result<u64, Error> {
    Ok(read(name)?.trim().parse().unwrap_or(0))
}

fn write(name: &str, value: &str) -> Result<(), Error> {
    fs::write(path(name), value).map_err(|source| Error::File { path: path(name), source })
}

/// KSM with the settings of its owner; dropping it unmerges everything and puts them back.
struct Settings(Vec<(&'static str, String)>);

impl Settings {
    fn take() -> Result<Settings, Error> {
        if !Path::new(DIRECTORY).exists() {
            return Err(Error::NoKsm);
        }
        let chosen = |text: String| match text.split_once('[') {
            Some((_, rest)) => rest.split(']').next().unwrap_or_default().to_owned(),
            None => text.trim().to_owned(),
        };
        let saved = SETTINGS.iter().map(|&name| Ok((name, chosen(read(name)?)))).collect::<Result<_, Error>>()?;
        Ok(Settings(saved))
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        // Unmerging first: pages of this process go back to what they were.
        let _ = write("run", "2");
        for (name, value) in self.0.iter().rev() {
            if let Err(error) = write(name, value) {
                eprintln!("ballast-bench: putting KSM's settings back: {error}");
            }
        }
    }
}

/// One guest's memory.
struct Memory {
    base: NonNull<c_void>,
    bytes: NonZeroUsize,
}

impl Memory {
    fn new(contents: &[u64]) -> Result<Memory, Error> {
        let bytes = NonZeroUsize::new(contents.len() * PAGE_BYTES)
            .ok_or_else(|| Error::Guest("a guest without pages".to_owned()))?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let base = unsafe { mmap_anonymous(None, bytes, protection, MapFlags::MAP_PRIVATE) };
        let memory = Memory { base: base.map_err(Error::system("mapping memory for KSM"))?, bytes };
        for advice in [MmapAdvise::MADV_NOHUGEPAGE, MmapAdvise::MADV_MERGEABLE] {
            // SAFETY: the range is the mapping just made.
            unsafe { madvise(memory.base, bytes.get(), advice) }.map_err(Error::system("offering memory to KSM"))?;
        }
        for (page, &number) in contents.iter().enumerate() {
            let bytes = content(number);
            // SAFETY: inside the mapping: there are as many pages as contents.
            let target = unsafe { memory.base.cast::<u8>().add(page * PAGE_BYTES) };
            // SAFETY: both are a page long, and nobody else knows of the mapping.
            unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), target.as_ptr(), PAGE_BYTES) };
        }
        Ok(memory)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: nobody borrows from a value that is being dropped.
        let _ = unsafe { munmap(self.base, self.bytes.get()) };
    }
}

/// ksmd's CPU time so far.
fn cpu() -> Result<Duration, Error> {
    let processes = fs::read_dir("/proc").map_err(|source| Error::File { path: "/proc".into(), source })?;
    for process in processes.flatten() {
        let stat = fs::read_to_string(process.path().join("stat")).unwrap_or_default();
        if let Some((_, fields)) = stat.split_once("(ksmd) ") {
            // Fields 14 and 15 of proc_pid_stat(5), in ticks of 10 ms; `fields` begins with the third.
            let ticks: u64 = fields.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
            return Ok(Duration::from_millis(ticks * 10));
        }
    }
    Err(Error::NoKsm)
}

/// Lets ksmd share what the scenario has.
pub fn measure(scenario: &Scenario) -> Result<Side, Error> {
    let settings = Settings::take()?;
    write("run", "2")?;
    write("advisor_mode", "none")?;
    write("smart_scan", "0")?;
    write("sleep_millisecs", "0")?;
    write("pages_to_scan", "20000")?;
    let guests = scenario.contents.iter().map(|contents| Memory::new(contents)).collect::<Result<Vec<_>, _>>()?;
    let (start, cpu_before) = (Instant::now(), cpu()?);
    write("run", "1")?;
    let (mut best, mut best_scan) = (Best::default(), number("full_scans")?);
    let limit = scenario.limit_pages();
    while start.elapsed() < LIMIT && number("full_scans")? < best_scan + BARREN_SCANS {
        thread::sleep(LOOK);
        let (sharing, scan) = (number("pages_sharing")?, number("full_scans")?);
        if sharing > best.sharing {
            best = Best { sharing, shared: number("pages_shared")?, cpu: cpu()? - cpu_before, wall: start.elapsed() };
            best_scan = scan;
        }
        if sharing >= limit {
            break;
        }
    }
    drop(guests);
    drop(settings);
    let pages: u64 = scenario.contents.iter().map(|contents| contents.len() as u64).sum();
    Ok(Side {
        pages_saved: best.sharing,
        merges: best.sharing + best.shared,
        cpu_seconds: best.cpu.as_secs_f64(),
        wall_seconds: best.wall.as_secs_f64(),
        metadata_bytes: pages * METADATA_BYTES,
    })
}

/// Figures when the last page was gained.
#[derive(Default)]
struct Best {
    sharing: u64,
    shared: u64,
    cpu: Duration,
    wall: Duration,
}
