//! Everything that can be wrong with a command line or a machine is found here, before any guest starts.
//!
//! [`check`] turns a [`RunConfig`], whose values may be anything, into a [`CheckedRun`], whose values are
//! known to be good. What it cannot see (an image that shrinks later, memory that others take) the VMMs find
//! and report themselves.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::net::TcpListener;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use control::{Dedup, Levers};
use wire::PAGE_BYTES;
use wire::machine::{RAM_BYTES_MAX, VCPUS_MAX, Workload};

use crate::bytes::ByteCount;
use crate::config::{DOMAIN_DEFAULT, GUESTS_DEFAULT, GUESTS_MAX, MEMORY_BYTES_DEFAULT, RunConfig, SwapChoice};
use crate::error::Error;
use crate::plan::PlannedGuest;
use crate::request::descriptors;
use crate::request::domain_range::own_domain;
use crate::request::guest_levers;
use crate::request::guest_promises::Promises;
use crate::request::guest_settings::GuestSettings;
use crate::request::linux;
use crate::request::machine_memory::memory_bytes;
use crate::request::prerequisite::{self, VMA_RESERVE};
use crate::request::promises::Promise;
use crate::tier::{Tier, TierChoice};

/// Least RAM of a guest, bytes: the guest's tables and one phase of each workload.
pub const MEMORY_BYTES_MIN: u64 = 16 << 20;
/// What scanners may be allowed together while idle, in CPUs.
const DEDUP_CPU_SHARES: RangeInclusive<f64> = 0.001..=1.0;
/// A higher tax would leave idle memory to nobody.
const IDLE_TAX_PERCENT_MAX: u8 = 99;
/// Shorter, a guest has no time to touch what it uses; longer, the sample is history.
const SAMPLE_PERIODS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
/// Shortest run: the policy's answer to a change takes a few status intervals.
const DURATION_MIN: Duration = Duration::from_secs(1);
/// Shortest time from one guest's restart to the next's: one status interval.
const RESTART_EVERY_MIN: Duration = Duration::from_millis(100);
/// Longest run; longer lives are a service's.
const DURATION_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// A run that may start.
#[derive(Debug)]
pub struct CheckedRun {
    /// What was asked for.
    pub config: RunConfig,
    /// The guests, in order of their numbers.
    pub guests: Vec<PlannedGuest>,
    /// Bound, so that nobody else can take the address any more.
    pub listener: TcpListener,
    /// Made, so that other runs know.
    pub promise: Promise,
    /// The kernel tier, if there is one.
    pub tier: Option<Tier>,
    /// What was chosen for whoever did not, in a line each.
    pub notes: Vec<String>,
}

/// Checks everything; the first thing that is wrong is the error.
pub fn check(mut config: RunConfig) -> Result<CheckedRun, Error> {
    let count = config.guests.unwrap_or(match config.images.len() as u32 {
        0 if config.linux.is_some() => 1,
        0 => GUESTS_DEFAULT,
        images => images,
    });
    in_range("--guests", count, 1..=GUESTS_MAX, "")?;
    in_range("--vcpus", config.vcpus, 1..=VCPUS_MAX as u32, "")?;
    if !(DURATION_MIN..=DURATION_MAX).contains(&config.duration) {
        return Err(out_of_range("--duration", format!("{:?}", config.duration), "1s to 168h"));
    }
    if let Some(every) = config.restart_every.filter(|every| !(RESTART_EVERY_MIN..=DURATION_MAX).contains(every)) {
        return Err(out_of_range("--restart-every", format!("{every:?}"), "100ms to 168h"));
    }
    if let Some(bytes) = config.memory_bytes {
        in_range("--memory", ByteCount(bytes), ByteCount(MEMORY_BYTES_MIN)..=ByteCount(RAM_BYTES_MAX), "")?;
        if !bytes.is_multiple_of(PAGE_BYTES as u64) {
            return Err(out_of_range("--memory", format!("{bytes} B"), "multiples of the page size, 4096 bytes"));
        }
    }
    if !DEDUP_CPU_SHARES.contains(&config.dedup_cpu_share) {
        return Err(out_of_range("--dedup-cpu", percent(config.dedup_cpu_share), "0.1% to 100% of one CPU"));
    }
    if let Some(areas) = config.vma_budget {
        let most = prerequisite::vma_budget_max().map_err(Error::Prerequisite)?;
        let note = format!(" (vm.max_map_count less {VMA_RESERVE}; sysctl -w vm.max_map_count=... raises it)");
        in_range("--vma-budget", areas, 0..=most, &note)?;
    }
    if config.idle_tax_percent > IDLE_TAX_PERCENT_MAX {
        return Err(out_of_range("--idle-tax", format!("{}%", config.idle_tax_percent), "0% to 99%"));
    }
    if let Some(period) = config.sample_period.filter(|period| !SAMPLE_PERIODS.contains(period)) {
        return Err(out_of_range("--sample-period", format!("{period:?}"), "1s to 1h, and 0s for never"));
    }
    let mut guests = plan_guests(&config, count)?;
    let machine = memory_bytes().map_err(Error::Prerequisite)?;
    in_range(
        "--budget",
        ByteCount(config.budget_bytes),
        ByteCount(1)..=ByteCount(machine),
        " (this machine's memory)",
    )?;
    crate::request::admission::admit(&config, &guests)?;
    crate::request::admission::settle_preloads(&config, &mut guests);
    let mut notes: Vec<_> = plan_swap(&mut config, &mut guests)?.into_iter().collect();
    prerequisite::require(config.vcpu).map_err(Error::Prerequisite)?;
    descriptors::require(count, config.kernel_tier != TierChoice::Off).map_err(Error::Prerequisite)?;
    let address = config.metrics;
    let listener = TcpListener::bind(address).map_err(|source| Error::MetricsAddress { address, source })?;
    if let Some(path) = &config.report {
        let opened = OpenOptions::new().create(true).append(true).open(path);
        opened.map_err(|source| Error::Report { path: path.clone(), source })?;
    }
    // Last, as it is seen by others.
    let guests_bytes: Vec<_> = guests.iter().map(|guest| guest.memory_bytes).collect();
    let promise = Promise::make(config.budget_bytes, guests_bytes.iter().sum(), config.over_promise)?;
    let (tier, said) = Tier::start(&config.kernel_tier, &guests_bytes).map_err(Error::KernelTier)?;
    notes.extend(said);
    Ok(CheckedRun { config, guests, listener, promise, tier, notes })
}

fn plan_guests(config: &RunConfig, count: u32) -> Result<Vec<PlannedGuest>, Error> {
    let sizes =
        config.images.iter().map(|path| image_bytes(path, config.memory_bytes)).collect::<Result<Vec<_>, _>>()?;
    let linux = linux::plan(config, config.memory_bytes.unwrap_or(MEMORY_BYTES_DEFAULT))?;
    let mut domains = plan_domains(config, count)?.into_iter();
    let plan = |number: u32| {
        let (domain, dedup) = domains.next().unwrap_or_else(|| (own_domain(number), config.levers.dedup));
        let image = (number as usize).checked_rem(sizes.len());
        let linux = linux.clone();
        let memory_bytes = image.map_or(config.memory_bytes.unwrap_or(MEMORY_BYTES_DEFAULT), |image| sizes[image]);
        Ok(PlannedGuest {
            name: format!("guest{number}"),
            memory_bytes,
            linux,
            image: image.map(|image| config.images[image].clone()),
            workload: if image.is_some() { Workload::Image } else { config.workload },
            vma_budget: match config.vma_budget {
                Some(areas) => areas,
                None => prerequisite::vma_budget(memory_bytes / PAGE_BYTES as u64).map_err(Error::Prerequisite)?,
            },
            domain,
            levers: Levers { dedup, ..config.levers },
            swap_bytes: 0,
            promises: Promises::default(),
            active_permille: None,
        })
    };
    let mut guests = (0..count).map(plan).collect::<Result<Vec<_>, Error>>()?;
    settle(config, &mut guests)?;
    linux::check_devices(&guests)?;
    Ok(guests)
}

/// Settles where the guests' swap files are, and how long; what is to be said of that.
fn plan_swap(config: &mut RunConfig, guests: &mut [PlannedGuest]) -> Result<Option<String>, Error> {
    let memory = guest_levers::swapped_bytes(config, guests);
    // Without a pager nothing is ever evicted.
    let asked = if config.levers.pager { config.swap.clone() } else { SwapChoice::Off };
    let (swap, note) = crate::request::swap::settle(asked, &memory)?;
    guest_levers::check_swap(config, &swap, note.as_deref())?;
    let shares = swap.files().map(|files| files.shares(&memory)).unwrap_or_default();
    guests.iter_mut().zip(shares).for_each(|(guest, bytes)| guest.swap_bytes = bytes);
    config.swap = swap;
    Ok(note)
}

/// Takes what `--guest` says over.
fn settle(config: &RunConfig, guests: &mut [PlannedGuest]) -> Result<(), Error> {
    let (count, settings) = (guests.len(), &config.guest_settings);
    let refused = |settings: &GuestSettings, allowed: &str| out_of_range("--guest", settings.to_string(), allowed);
    for (at, one) in settings.iter().enumerate() {
        let Some(guest) = guests.get_mut(one.guest as usize) else {
            return Err(refused(one, &format!("numbers from 0 to {}", count - 1)));
        };
        if settings[..at].iter().any(|other| other.guest == one.guest) {
            return Err(refused(one, "all settings of a guest in one --guest"));
        }
        if one.workload.is_some() && (guest.image.is_some() || guest.linux.is_some()) {
            return Err(refused(one, "workloads of bare guests without an image"));
        }
        match &mut guest.linux {
            Some(linux) => {
                linux.disks.extend(one.disks.iter().cloned());
                linux.taps.extend(one.taps.iter().cloned());
            }
            None if one.disks.is_empty() && one.taps.is_empty() => {}
            None => return Err(refused(one, "disks and taps of Linux guests, with --kernel")),
        }
        guest.promises = Promises {
            shares: one.shares.unwrap_or(policy::SHARES_DEFAULT),
            reservation_bytes: one.reservation_bytes,
            limit_bytes: one.limit_bytes,
        };
        guest.promises.check(guest.memory_bytes).map_err(|allowed| refused(one, &allowed))?;
        guest.workload = one.workload.unwrap_or(guest.workload);
        guest.active_permille = one.active_permille;
        guest_levers::settle(config, one, guest)?;
    }
    Ok(())
}

/// Domain and mode of the guests in their order, as far as the ranges go.
fn plan_domains(config: &RunConfig, guests: u32) -> Result<Vec<(String, Dedup)>, Error> {
    let dedup = config.levers.dedup;
    if config.domains.is_empty() {
        return Ok((0..guests).map(|_| (DOMAIN_DEFAULT.to_owned(), dedup)).collect());
    }
    let mut planned: Vec<(String, Dedup)> = Vec::new();
    for range in &config.domains {
        let left = guests - planned.len() as u32;
        let count = range.guests.unwrap_or(left);
        if !(1..=left).contains(&count) {
            let allowed = match left {
                0 => format!("none, all {guests} guests have their domain already"),
                _ => format!("1 to {left} guests, of {guests} in all"),
            };
            return Err(out_of_range("--domain", range.to_string(), &allowed));
        }
        let dedup = if range.zero_pages_only && dedup == Dedup::On { Dedup::ZeroPagesOnly } else { dedup };
        for number in (planned.len() as u32..).take(count as usize) {
            let name = range.name.clone().unwrap_or_else(|| own_domain(number));
            if planned.iter().any(|(other, mode)| *other == name && *mode != dedup) {
                return Err(Error::DomainMode { domain: name });
            }
            planned.push((name, dedup));
        }
    }
    Ok(planned)
}

/// The size of an image that can be a guest's RAM.
fn image_bytes(path: &Path, memory_bytes: Option<u64>) -> Result<u64, Error> {
    let unreadable = |source| Error::ImageUnreadable { path: path.to_path_buf(), source };
    let metadata = File::open(path).and_then(|file| file.metadata()).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(unreadable(ErrorKind::InvalidInput.into()));
    }
    let bytes = metadata.len();
    let wrong = |wanted: String| Err(Error::ImageSize { path: path.to_path_buf(), bytes, wanted });
    match memory_bytes {
        Some(memory) if memory != bytes => {
            wrong(format!("--memory says {memory}; is it truncated? leave --memory out to take the image's size"))
        }
        _ if !bytes.is_multiple_of(PAGE_BYTES as u64) => {
            wrong("no multiple of the page size, 4096; it is truncated: make it again".into())
        }
        _ if !(MEMORY_BYTES_MIN..=RAM_BYTES_MAX).contains(&bytes) => {
            wrong(format!("a guest has {} to {}; make it again", ByteCount(MEMORY_BYTES_MIN), ByteCount(RAM_BYTES_MAX)))
        }
        _ => Ok(bytes),
    }
}

fn in_range<T: PartialOrd + std::fmt::Display>(
    option: &'static str,
    value: T,
    range: RangeInclusive<T>,
    note: &str,
) -> Result<(), Error> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(out_of_range(option, value.to_string(), &format!("{} to {}{note}", range.start(), range.end())))
}

fn percent(share: f64) -> String {
    format!("{}%", share * 100.0)
}

fn out_of_range(option: &'static str, value: String, allowed: &str) -> Error {
    Error::OutOfRange { option, value, allowed: allowed.into() }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use control::Levers;

    use super::*;

    fn config(images: &[PathBuf]) -> RunConfig {
        let levers = Levers { dedup: Dedup::On, balloon: true, pager: true };
        RunConfig { workload: Workload::Mixed, images: images.to_vec(), ..RunConfig::idle(1 << 30, levers) }
    }

    #[test]
    fn by_default_there_are_eight_guests_with_the_workload_that_was_asked_for() {
        let guests = plan_guests(&config(&[]), 8).unwrap();
        assert!(guests.iter().all(|guest| guest.memory_bytes == 256 << 20 && guest.workload == Workload::Mixed));
        assert_eq!((guests[0].name.as_str(), guests[7].name.as_str()), ("guest0", "guest7"));
    }

    #[test]
    fn guests_are_put_into_domains_in_their_order_and_the_rest_shares_with_nobody() {
        let with = |domains: &[&str]| {
            let domains = domains.iter().map(|text| text.parse().unwrap()).collect();
            plan_guests(&RunConfig { domains, ..config(&[]) }, 4)
        };
        let plan = |domains: &[&str]| {
            with(domains).unwrap().into_iter().map(|guest| (guest.domain, guest.levers.dedup)).collect::<Vec<_>>()
        };
        let planned = |names: [&str; 4]| names.map(|name| (name.to_owned(), Dedup::On)).to_vec();
        assert_eq!(plan(&[]), planned(["default"; 4]));
        assert_eq!(plan(&["web"]), planned(["web"; 4]));
        assert_eq!(plan(&["web=2", "db=1"]), planned(["web", "web", "db", "own:guest3"]));
        assert_eq!(plan(&["none"]), planned(["own:guest0", "own:guest1", "own:guest2", "own:guest3"]));
        assert_eq!(plan(&["web=1", "none=2", "web"]), planned(["web", "own:guest1", "own:guest2", "web"]));
        let vault = plan(&["web=3", "vault=1:zero-pages-only"]);
        assert_eq!(vault[3], ("vault".into(), Dedup::ZeroPagesOnly));
        for (domains, words) in [
            (vec!["web=5"], "--domain web=5: allowed are 1 to 4 guests, of 4"),
            (vec!["web=2", "db=3"], "--domain db=3: allowed are 1 to 2 guests"),
            (vec!["web=0"], "--domain web=0: allowed are 1 to 4"),
            (vec!["web", "db=1"], "--domain db=1: allowed are none"),
            (vec!["web=1", "web=1:zero-pages-only"], "--domain web: given with and without zero-pages-only"),
        ] {
            let refusal = with(&domains).unwrap_err().to_string();
            assert!(refusal.starts_with(words), "{refusal}");
        }
    }

    #[test]
    fn settings_of_single_guests_are_taken_over_and_nonsense_is_answered_with_what_would_be_right() {
        let with = |settings: &[&str]| {
            let guest_settings = settings.iter().map(|text| text.parse().unwrap()).collect();
            plan_guests(&RunConfig { guest_settings, ..config(&[]) }, 2)
        };
        let guests = with(&["1:shares=3000,reservation=64MiB,limit=128MiB,workload=zipf,active=90%"]).unwrap();
        assert_eq!((guests[0].promises, guests[0].workload), (Promises::default(), Workload::Mixed));
        let promises = Promises { shares: 3000, reservation_bytes: Some(64 << 20), limit_bytes: Some(128 << 20) };
        assert_eq!((guests[1].promises, guests[1].workload), (promises, Workload::Zipf));
        assert_eq!(guests[1].active_permille, Some([900, 900]));
        for (settings, words) in [
            (vec!["2:shares=1"], "allowed are numbers from 0 to 1"),
            (vec!["0:shares=0"], "allowed are shares from 1 to 1000000"),
            (vec!["0:reservation=128MiB,limit=64MiB"], "to 64 MiB (its limit)"),
            (vec!["0:reservation=1G"], "allowed are reservations from 21.2 MiB to 261.2 MiB"),
            (vec!["0:limit=4K"], "allowed are limits from 21.2 MiB to 261.2 MiB"),
            (vec!["0:limit=1G"], "allowed are limits from 21.2 MiB to 261.2 MiB"),
            (vec!["0:shares=1", "0:limit=64MiB"], "allowed are all settings of a guest in one --guest"),
        ] {
            let refusal = with(&settings).unwrap_err().to_string();
            assert!(refusal.starts_with("--guest ") && refusal.contains(words), "{refusal}");
        }
    }

    #[test]
    fn reservations_beyond_the_budget_are_refused_with_what_would_do() {
        let settings = |number| format!("{number}:reservation=200MiB").parse().unwrap();
        let guest_settings = (0..3).map(settings).collect();
        let config = RunConfig { guest_settings, guests: Some(3), budget_bytes: 512 << 20, ..config(&[]) };
        let guests = plan_guests(&config, 3).unwrap();
        let refusal = crate::request::admission::admit(&config, &guests).unwrap_err().to_string();
        assert!(refusal.contains("at least 614 MiB, or start at most 2 new guests"), "{refusal}");
    }

    #[test]
    fn guests_take_the_images_in_turn_with_their_sizes() {
        let folder = tempfile::tempdir().unwrap();
        let image = |mib: u64| {
            let path = folder.path().join(format!("{mib}.mem"));
            File::create(&path).unwrap().set_len(mib << 20).unwrap();
            path
        };
        let images = [image(16), image(32)];
        let guests = plan_guests(&config(&images), 3).unwrap();
        assert_eq!([0, 1, 2].map(|number: usize| guests[number].memory_bytes >> 20), [16, 32, 16]);
        assert_eq!(guests[2].image.as_ref(), Some(&images[0]));
        assert!(guests.iter().all(|guest| guest.workload == Workload::Image));
    }

    #[test]
    fn the_address_is_bound_when_the_plan_is_made() {
        let plan = check(config(&[])).unwrap();
        let address = plan.listener.local_addr().unwrap();
        let second = check(RunConfig { metrics: address, ..config(&[]) });
        assert!(matches!(second, Err(Error::MetricsAddress { .. })));
    }
}
