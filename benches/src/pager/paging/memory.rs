//! The memory of a guest that is measured, whoever manages it.

use std::{
    path::PathBuf,
    ptr::NonNull,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use control::{WHOLE_PAGE_PRICE, status::PagerStatus};
use dedup::Domain;
use pager::{GuestMemory, SlotFile, SwapFile};
use vmm::{Failures, sys};

use crate::kit::{error::Error, guest_memory, ram::PlainMemory};
use crate::pager::paging::{
    floor::SwappingFloor,
    spec::{Kind, Spec},
    swap::zram_bytes,
};

/// Eviction may take so long.
const EVICTION_LIMIT: Duration = Duration::from_secs(10);
/// It is over once nothing more has gone for so long.
const BARREN: Duration = Duration::from_millis(200);

/// See the module's description.
pub enum Memory {
    /// The pager's.
    Ballast(Ballast),
    /// The kernel's.
    Plain(PlainMemory),
    /// The floor's.
    Floor(SwappingFloor),
}

/// The pager at work as in a VMM.
pub struct Ballast {
    memory: Arc<GuestMemory>,
    _threads: pager::Threads,
    failures: Failures,
    zram: Option<PathBuf>,
}

impl Memory {
    /// Of so many pages.
    pub fn new(spec: &Spec, pages: u32) -> Result<Memory, Error> {
        match spec.kind {
            Kind::Ballast => Ballast::new(spec, pages).map(Memory::Ballast),
            Kind::Plain => {
                let plain = PlainMemory::new(pages)?;
                if spec.mergeable {
                    plain.offer_to_ksm()?;
                }
                Ok(Memory::Plain(plain))
            }
            Kind::Floor => SwappingFloor::new(pages, spec.resident_pages).map(Memory::Floor),
        }
    }

    /// Where it is.
    pub fn base(&self) -> NonNull<u8> {
        match self {
            Memory::Ballast(ballast) => ballast.memory.base(),
            Memory::Plain(plain) => plain.base(),
            Memory::Floor(floor) => floor.base(),
        }
    }

    /// Whose faults are the guest's.
    pub fn set_vcpu_tids(&self, tids: Vec<i32>) {
        if let Memory::Ballast(ballast) = self {
            ballast.memory.set_vcpu_tids(tids);
        }
    }

    /// Has the pager evict what it can of all that is above `bytes`, then gives it its allocation back.
    pub fn evict(&self, bytes: u64, allocation_bytes: u64) {
        let Memory::Ballast(ballast) = self else { return };
        let private = || ballast.memory.pages().counts().private;
        ballast.memory.set_allocation(bytes);
        let (begun, mut least, mut since) = (Instant::now(), private(), Instant::now());
        while begun.elapsed() < EVICTION_LIMIT && since.elapsed() < BARREN {
            thread::sleep(Duration::from_millis(5));
            if private() < least {
                (least, since) = (private(), Instant::now());
            }
        }
        ballast.memory.set_allocation(allocation_bytes);
    }

    /// Brings the account up to date; the pager's counters.
    pub fn status(&self) -> Result<Option<PagerStatus>, Error> {
        let Memory::Ballast(ballast) = self else { return Ok(None) };
        if let Some(reason) = ballast.failures.first() {
            return Err(Error::Guest(reason));
        }
        ballast.tell_price();
        Ok(Some(ballast.memory.status(sys::anonymous_bytes())?))
    }
}

impl Ballast {
    /// What a page in the zram device costs, as the host tells its VMMs.
    fn tell_price(&self) {
        let Some((pages_bytes, used_bytes)) = self.zram.as_deref().and_then(zram_bytes) else { return };
        let whole = u64::from(WHOLE_PAGE_PRICE);
        if let Some(price) = (used_bytes * whole).checked_div(pages_bytes) {
            self.memory.set_kernel_price(price.min(whole) as u16);
        }
    }

    fn new(spec: &Spec, pages: u32) -> Result<Ballast, Error> {
        let foreign_bytes = sys::anonymous_bytes();
        let domain = Domain::new(pages, 0x5eed)?;
        let swap = spec.swap.as_ref().map(|directory| {
            let file = SwapFile::create(directory, guest_memory::bytes(pages));
            file.map(|file| Box::new(file) as Box<dyn SlotFile>).map_err(|error| Error::Guest(error.to_string()))
        });
        let config = pager::Config {
            overhead_bytes: u64::from(pages) * pager::TABLE_BYTES_PER_PAGE,
            evict: true,
            vma_budget: 1,
            swap: swap.transpose()?,
            kernel_tier: spec.kernel_tier.is_some(),
            foreign_bytes,
            ..guest_memory::config(pages, spec.allocation_bytes)
        };
        let failures = Failures::default();
        let (memory, threads) = guest_memory::start(config, &domain, &failures)?;
        Ok(Ballast { memory, _threads: threads, failures, zram: spec.kernel_tier.clone() })
    }
}
