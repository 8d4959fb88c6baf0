//! A guest of ours in this process: the VMM's own machine, without host and scanner.

use std::time::Duration;

use control::{Dedup, GuestConfig, KERNEL_PAGE_PRICE_UNMEASURED, Levers, PROTOCOL_VERSION, VcpuKind};
use dedup::{Domain, ScannerHandle};
use pager::{Gfn, PAGE_BYTES};
use vmm::{Failures, Inherited, Machine, kvm};
use wire::machine::Workload;

use crate::kit::{error::Error, random::Random};

/// How long a guest may take to stand still.
const PAUSE_LIMIT: Duration = Duration::from_secs(10);

/// What is started.
#[derive(Clone, Copy, Debug)]
pub struct GuestSpec {
    /// RAM, MiB.
    pub memory_mib: u64,
    /// Pages in the balloon before the workload starts, in MiB; none: no balloon device.
    pub balloon_mib: Option<u64>,
    /// What the guest does.
    pub workload: Workload,
    /// Thousandths of RAM it does that with.
    pub active_permille: Option<u16>,
    /// Whether all of RAM has content, as after a life of a guest.
    pub filled: bool,
    /// Whether it is evicted when it has not enough memory.
    pub pager: bool,
    /// Whether its working set comes back in bulk.
    pub prefetch: bool,
}

/// The guest; it stands still until [`Guest::resume`].
pub struct Guest {
    machine: Machine,
    failures: Failures,
    // What backs the machine's memory.
    _domain: Domain,
}

impl Guest {
    /// Builds it.
    pub fn start(spec: GuestSpec) -> Result<Guest, Error> {
        kvm::open().map_err(|error| Error::Guest(error.to_string()))?;
        let memory_bytes = spec.memory_mib << 20;
        let pages = (memory_bytes / PAGE_BYTES as u64) as u32;
        let domain = Domain::new(pages, 1)?;
        let descriptors = domain.descriptors()?;
        let failures = Failures::default();
        let config = GuestConfig {
            protocol_version: PROTOCOL_VERSION,
            name: "balloon".to_owned(),
            guest: 0,
            memory_bytes,
            // There is no scanner.
            tables_bytes: u64::from(pages) * pager::TABLE_BYTES_PER_PAGE,
            vcpus: 1,
            vcpu: VcpuKind::Kvm,
            workload: spec.workload as u32,
            seed: 1,
            linux: None,
            image: None,
            levers: Levers { dedup: Dedup::Off, balloon: spec.balloon_mib.is_some(), pager: spec.pager },
            store_frames: domain.store_frames(),
            hash_secret: domain.hash_secret(),
            scanner_cpu_share: 0.0,
            scanner_idle_cpu_share: 0.0,
            // Never short: it is the balloon that is measured.
            allocation_bytes: 2 * memory_bytes,
            balloon_bytes: spec.balloon_mib.unwrap_or(0) << 20,
            floor_bytes: 0,
            active_permille: spec.active_permille.map(|permille| [permille; 2]),
            vma_budget: 0,
            swap: false,
            prefetch: spec.prefetch,
            kernel_tier: false,
            kernel_page_price: KERNEL_PAGE_PRICE_UNMEASURED,
        };
        let machine = Machine::build(
            config,
            Inherited { store: descriptors.store, published: descriptors.published, swap: None, linux: Vec::new() },
            failures.clone(),
            ScannerHandle::default(),
            |_| {},
        )
        .map_err(|error| Error::Guest(error.to_string()))?;
        if spec.filled {
            let mut random = Random::new(1);
            for gfn in 0..pages {
                let mut page = [0; PAGE_BYTES];
                page.chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&random.below(u64::MAX).to_le_bytes()));
                machine.memory().populate(Gfn(gfn), &page)?;
            }
        }
        Ok(Guest { machine, failures, _domain: domain })
    }

    /// The machine around the guest.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Wishes for a balloon of so many bytes.
    pub fn request(&self, bytes: u64) {
        let memory_bytes = u64::from(self.machine.memory().pages().count()) * PAGE_BYTES as u64;
        self.machine.allocate(2 * memory_bytes, bytes, control::WHOLE_PAGE_PRICE);
    }

    /// Lets it run.
    pub fn resume(&self) {
        self.machine.resume();
    }

    /// Has it stand still.
    pub fn pause(&self) -> Result<(), Error> {
        self.machine.pause(PAUSE_LIMIT).map_err(|error| Error::Guest(error.to_string()))
    }

    /// An error if it has failed, or found a page that is not what it wrote.
    pub fn check(&self) -> Result<(), Error> {
        let status = self.machine.workload_status();
        if status.pages_corrupt_total > 0 {
            return Err(Error::Guest(format!("{} corrupt pages", status.pages_corrupt_total)));
        }
        self.failures.first().map_or(Ok(()), |reason| Err(Error::Guest(reason)))
    }
}
