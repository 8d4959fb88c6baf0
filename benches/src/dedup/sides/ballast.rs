//! Ballast's side: guests' memories under the pager, each with its scanner, and one sharing domain, all in
//! this process. The messages between scanners and store are encoded and decoded as on a socket.
//!
//! Scanners are driven in one of two ways: [`Ballast::pass`], one after the other without a pause, so that
//! CPU time is theirs alone; or each on its thread at its own pace, as in a VMM (`paced`).

use std::{collections::VecDeque, fs, sync::Arc, time::Duration};

use control::{MergeAnswer, MergeRequest};
use dedup::{Domain, VmmId};
use pager::PAGE_BYTES;
use vmm::Failures;

use crate::{
    dedup::{
        contents::Contents,
        sides::{
            guest::{Guest, over_the_wire},
            paced::Paced,
            sharer::{Metadata, Sharer},
        },
    },
    kit::{
        books, clocks,
        error::Error,
        ram::{GuestRam, keep_tables_out_of_heap, trim_heap},
        settings::{Step, Undo},
    },
};

/// The kernel's limit of address-space areas, which counts them per process. Here all guests live in one
/// process, so that their CPU time is one figure; the limit is raised meanwhile to what as many processes
/// would have.
const MAX_MAP_COUNT: &str = "/proc/sys/vm/max_map_count";
/// Threads of this process that Ballast's work is done on, by the beginnings of their names.
const THREADS: [&str; 5] = ["fault", "evictor", "scanner", "dedup-hash", "upkeep"];

/// Guests of Ballast.
pub struct Ballast {
    // Dropped in this order: scanners before the memory they scan.
    paced: Option<Paced>,
    guests: Vec<Guest>,
    domain: Arc<Domain>,
    failures: Failures,
    anonymous_before: u64,
    page_tables_loaded: u64,
    area_bytes: f64,
    _map_count: Undo,
}

impl Ballast {
    /// Guests with these contents, nothing of them shared.
    pub fn load(contents: &Contents, area_bytes: f64) -> Result<Ballast, Error> {
        let count = contents.guests() as u32;
        keep_tables_out_of_heap();
        let map_count = raise_map_count(count)?;
        trim_heap();
        let anonymous_before = books::anonymous_bytes()?;
        let domain = Arc::new(Domain::new(contents.pages(), 0x5eed)?);
        domain.set_store_budget_bytes(u64::MAX / 2);
        let failures = Failures::default();
        let mut guests = Vec::new();
        for guest in 0..count {
            domain.vmm_joined(VmmId::first(guest), contents.pages())?;
            guests.push(Guest::load(&domain, contents, guest as usize, &failures)?);
        }
        let page_tables_loaded = books::page_table_bytes()?;
        Ok(Ballast {
            paced: None,
            guests,
            domain,
            failures,
            anonymous_before,
            page_tables_loaded,
            area_bytes,
            _map_count: map_count,
        })
    }

    /// Guests there are.
    pub fn guests(&self) -> usize {
        self.guests.len()
    }

    /// One pass of one guest's scanner, and all that follows from it in any guest, between its batches.
    pub fn pass(&mut self, number: usize) -> Result<(), Error> {
        let mut requests = VecDeque::new();
        let mut ended = false;
        while !ended {
            let Some(scanner) = &mut self.guests[number].scanner else { return Ok(()) };
            ended = scanner.scan_batch(|request| requests.push_back((number, request)));
            while let Some((from, request)) = requests.pop_front() {
                for (to, answer) in self.domain.handle(VmmId::first(from as u32), over_the_wire(&request)?)? {
                    let answer: MergeAnswer = over_the_wire(&answer)?;
                    let to = to.guest as usize;
                    let Some(scanner) = &mut self.guests[to].scanner else { continue };
                    scanner.on_answer(answer, |request: MergeRequest| requests.push_back((to, request)));
                }
            }
        }
        self.failures.first().map_or(Ok(()), |reason| Err(Error::Guest(reason)))
    }

    /// Pages that share a frame, and pages found all zero.
    pub fn merges(&self) -> u64 {
        self.guests.iter().map(|guest| guest.memory.pages().counts()).map(|counts| counts.shared + counts.zero).sum()
    }

    fn frames(&self) -> Result<u64, Error> {
        Ok(self.domain.allocated_bytes()? / PAGE_BYTES as u64)
    }

    fn private_pages(&self) -> u64 {
        self.guests.iter().map(|guest| guest.memory.pages().counts().private).sum()
    }

    /// What is kept outside of guests' pages and anonymous memory.
    fn kernel_metadata(&self) -> Result<Metadata, Error> {
        let areas: u64 = self.guests.iter().map(|guest| u64::from(guest.memory.pages().vmas())).sum();
        let page_tables = books::page_table_bytes()?.saturating_sub(self.page_tables_loaded);
        let area_bytes = (areas as f64 * self.area_bytes) as u64;
        Ok(Metadata { area_bytes, page_table_bytes: page_tables, ..Metadata::default() })
    }

    fn anonymous_bytes(&self) -> Result<u64, Error> {
        trim_heap();
        Ok(books::anonymous_bytes()?.saturating_sub(self.anonymous_before))
    }
}

impl Sharer for Ballast {
    fn rams(&self) -> Vec<GuestRam> {
        let ram = |guest: &Guest| GuestRam::new(guest.memory.base(), guest.memory.pages().count());
        self.guests.iter().map(ram).collect()
    }

    fn begin(&mut self) -> Result<(), Error> {
        self.paced = Some(Paced::begin(&self.domain, &mut self.guests, &self.failures)?);
        Ok(())
    }

    fn halt(&mut self) -> Result<(), Error> {
        self.paced = None;
        self.failures.first().map_or(Ok(()), |reason| Err(Error::Guest(reason)))
    }

    fn cpu(&self) -> Result<Duration, Error> {
        let ours = |name: &str| THREADS.iter().any(|thread| name.starts_with(thread));
        Ok(clocks::threads()?.iter().filter(|(name, _)| ours(name)).map(|(_, time)| *time).sum())
    }

    fn saved_pages(&self) -> Result<u64, Error> {
        Ok(self.merges().saturating_sub(self.frames()?))
    }

    fn cost_bytes(&self) -> Result<u64, Error> {
        Ok(self.anonymous_bytes()? + self.domain.allocated_bytes()? + self.kernel_metadata()?.bytes())
    }

    fn metadata(&self) -> Result<Metadata, Error> {
        let guest_bytes = self.private_pages() * PAGE_BYTES as u64;
        let process_bytes = self.anonymous_bytes()?.saturating_sub(guest_bytes);
        Ok(Metadata { process_bytes, ..self.kernel_metadata()? })
    }
}

fn raise_map_count(processes: u32) -> Result<Undo, Error> {
    let failed = |source| Error::File { path: MAX_MAP_COUNT.into(), source };
    let old = fs::read_to_string(MAX_MAP_COUNT).map_err(failed)?;
    let limit: u64 = old.trim().parse().unwrap_or(0);
    let undo = Undo::register(vec![Step::Write(MAX_MAP_COUNT.into(), old)]);
    fs::write(MAX_MAP_COUNT, (limit * u64::from(processes)).to_string()).map_err(failed)?;
    Ok(undo)
}
