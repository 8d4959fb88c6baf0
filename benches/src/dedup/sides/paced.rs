//! Ballast at its own pace: each guest's scanner on a thread of its own, as in a VMM, and a thread for what
//! host and VMMs do at each tick (the store retires frames, guests look at their open pages).
//!
//! ```text
//!   scanner 0 ──► Domain::handle (on the sender's thread) ──► letter boxes of scanners 0, 1, ...
//!   scanner 1 ──►        ▲
//!   upkeep ──────────────┘ sweep, ten times a second
//! ```

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

use control::{MergeAnswer, STATUS_INTERVAL};
use dedup::{Domain, ScannerHandle, VmmId};
use pager::GuestMemory;
use vmm::Failures;

use crate::{
    dedup::sides::guest::{Guest, over_the_wire},
    kit::error::Error,
};

/// Scanners at work; dropping it ends them.
pub struct Paced {
    stop: Arc<AtomicBool>,
    handles: Vec<ScannerHandle>,
    threads: Vec<JoinHandle<()>>,
}

impl Paced {
    /// Takes the guests' scanners, and lets them run.
    pub fn begin(domain: &Arc<Domain>, guests: &mut [Guest], failures: &Failures) -> Result<Paced, Error> {
        let scanners: Vec<_> = guests.iter_mut().filter_map(|guest| guest.scanner.take()).collect();
        let handles: Vec<_> = scanners.iter().map(|scanner| scanner.handle()).collect();
        let mut paced = Paced { stop: Arc::default(), handles, threads: Vec::new() };
        for (number, scanner) in (0..).zip(scanners) {
            let (stop, domain, handles) = (paced.stop.clone(), domain.clone(), paced.handles.clone());
            let failures = failures.clone();
            paced.spawn("scanner", move || {
                scanner.run(&stop, |request| {
                    let answers =
                        over_the_wire(&request).and_then(|request| Ok(domain.handle(VmmId::first(number), request)?));
                    let delivered = answers.and_then(|answers| deliver(&handles, answers));
                    if let Err(error) = delivered {
                        failures.report(error.to_string());
                    }
                });
            })?;
        }
        let (stop, domain, handles) = (paced.stop.clone(), domain.clone(), paced.handles.clone());
        let memories: Vec<_> = guests.iter().map(|guest| guest.memory.clone()).collect();
        let failures = failures.clone();
        paced.spawn("upkeep", move || {
            // Relaxed: the flag carries nothing but itself.
            while !stop.load(Ordering::Relaxed) {
                if let Err(error) = tick(&domain, &handles, &memories) {
                    failures.report(error.to_string());
                }
                thread::park_timeout(STATUS_INTERVAL);
            }
        })?;
        Ok(paced)
    }

    fn spawn(&mut self, name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), Error> {
        let thread = thread::Builder::new().name(name.into()).spawn(body);
        self.threads.push(thread.map_err(Error::system("starting a thread"))?);
        Ok(())
    }
}

impl Drop for Paced {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.handles.iter().for_each(ScannerHandle::wake);
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

fn tick(domain: &Domain, handles: &[ScannerHandle], memories: &[Arc<GuestMemory>]) -> Result<(), Error> {
    for memory in memories {
        // Overhead is not accounted here: allocations are ample.
        memory.note_written(0)?;
    }
    deliver(handles, domain.sweep(Instant::now()))
}

fn deliver(handles: &[ScannerHandle], answers: Vec<(VmmId, MergeAnswer)>) -> Result<(), Error> {
    for (VmmId { guest: to, .. }, answer) in answers {
        if let Some(handle) = handles.get(to as usize) {
            handle.post(over_the_wire(&answer)?);
        }
    }
    Ok(())
}
