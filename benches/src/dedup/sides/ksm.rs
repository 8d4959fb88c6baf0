//! ksmd's side: plain anonymous memory with `MADV_MERGEABLE`.

use std::{
    ffi::c_void,
    num::NonZeroUsize,
    ptr::{self, NonNull},
    time::Duration,
};

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};
use pager::{PAGE_BYTES, PageBytes};

pub use crate::kit::ksm::Mode;
use crate::{
    dedup::{
        contents::Contents,
        sides::sharer::{Metadata, Sharer},
    },
    kit::{
        books::{self, Slab},
        clocks,
        error::Error,
        ksm::{Settings, counter},
        ram::GuestRam,
    },
};

/// Guests for ksmd.
pub struct Ksm {
    guests: Vec<Memory>,
    settings: Option<Settings>,
    /// Anonymous memory of this process before there were guests.
    anonymous_before: u64,
}

impl Ksm {
    /// Guests with these contents; with [`Mode::Off`] they are not even offered to KSM.
    pub fn load(contents: &Contents, mode: Mode) -> Result<Ksm, Error> {
        let settings = if mode == Mode::Off { None } else { Some(Settings::take(mode)?) };
        let anonymous_before = books::anonymous_bytes()?;
        let guests = (0..contents.guests()).map(|guest| Memory::new(contents, guest, mode != Mode::Off));
        Ok(Ksm { guests: guests.collect::<Result<_, _>>()?, settings, anonymous_before })
    }

    /// Whole scans so far, of everything.
    pub fn full_scans() -> Result<u64, Error> {
        counter("full_scans")
    }

    /// Pages that were made to share, frames and zero pages included.
    pub fn merges(&self) -> Result<u64, Error> {
        Ok(self.saved_pages()? + counter("pages_shared")?)
    }
}

impl Sharer for Ksm {
    fn rams(&self) -> Vec<GuestRam> {
        self.guests.iter().map(|guest| GuestRam::new(guest.base.cast(), guest.pages)).collect()
    }

    fn begin(&mut self) -> Result<(), Error> {
        self.settings.iter().try_for_each(|settings| settings.run(true))
    }

    fn halt(&mut self) -> Result<(), Error> {
        self.settings.iter().try_for_each(|settings| settings.run(false))
    }

    fn cpu(&self) -> Result<Duration, Error> {
        if self.settings.is_some() { clocks::ksmd() } else { Ok(Duration::ZERO) }
    }

    fn saved_pages(&self) -> Result<u64, Error> {
        if self.settings.is_none() {
            return Ok(0);
        }
        Ok(counter("pages_sharing")? + counter("ksm_zero_pages")?)
    }

    fn cost_bytes(&self) -> Result<u64, Error> {
        Ok(books::anonymous_bytes()?.saturating_sub(self.anonymous_before) + self.metadata()?.bytes())
    }

    fn metadata(&self) -> Result<Metadata, Error> {
        if self.settings.is_none() {
            return Ok(Metadata::default());
        }
        let items = books::field("/proc/self/ksm_stat", "ksm_rmap_items")?;
        let nodes = counter("pages_shared")? + counter("stable_node_chains")?;
        let bytes = items * Slab("ksm_rmap_item").object_bytes()?
            + nodes * Slab("ksm_stable_node").object_bytes()?
            + Slab("ksm_mm_slot").object_bytes()?;
        Ok(Metadata { ksm_bytes: bytes, ..Metadata::default() })
    }
}

/// One guest's memory.
struct Memory {
    base: NonNull<c_void>,
    bytes: NonZeroUsize,
    pages: u32,
}

impl Memory {
    fn new(contents: &Contents, guest: usize, mergeable: bool) -> Result<Memory, Error> {
        let pages = contents.pages();
        let bytes = NonZeroUsize::new(pages as usize * PAGE_BYTES)
            .ok_or_else(|| Error::Guest("a guest without pages".to_owned()))?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let base = unsafe { mmap_anonymous(None, bytes, protection, MapFlags::MAP_PRIVATE) };
        let memory = Memory { base: base.map_err(Error::system("mapping memory"))?, bytes, pages };
        memory.advise(MmapAdvise::MADV_NOHUGEPAGE)?;
        if mergeable {
            memory.advise(MmapAdvise::MADV_MERGEABLE)?;
        }
        contents.each_page(guest, |gfn, bytes| {
            memory.write(gfn, bytes);
            Ok(())
        })?;
        Ok(memory)
    }

    fn advise(&self, advice: MmapAdvise) -> Result<(), Error> {
        // SAFETY: the range is this mapping; the advice changes no content.
        unsafe { madvise(self.base, self.bytes.get(), advice) }.map_err(Error::system("giving advice on memory"))
    }

    fn write(&self, gfn: u32, bytes: &PageBytes) {
        assert!(gfn < self.pages);
        // SAFETY: inside the mapping by the assertion.
        let target = unsafe { self.base.cast::<u8>().add(gfn as usize * PAGE_BYTES) };
        // SAFETY: both are a page long, and nobody holds a reference into the mapping.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), target.as_ptr(), PAGE_BYTES) };
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: nobody uses a guest's memory after its sharer is dropped.
        let _ = unsafe { munmap(self.base, self.bytes.get()) };
    }
}
