//! The fault threads, and the threads that bring pages back from the disk.

use std::{io, os::fd::AsFd, sync::atomic::Ordering, thread, time::Instant};

use control::sync;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Failure, GuestMemory, WAITING_MAX, Waiting, evictor::LOW_PAGES};
use crate::{
    accounts::stall::Cause,
    pages::Served,
    rules::reach::AHEAD_MAX,
    sys::{FaultEvent, FaultKind, PageBuffer, ThreadClock, Uffd},
};

impl GuestMemory {
    pub(super) fn serve_faults(&self) -> Result<(), Failure> {
        self.count_time()?;
        let uffd = self.pages.mapping.uffd();
        let has_helpers = self.fault_threads > 1;
        let mut events = Uffd::buffer();
        let mut buffer = PageBuffer::new(AHEAD_MAX)?;
        // Read, and not served yet: events are read on while a mapping is moved, because the move waits for
        // its own.
        let mut pending = Vec::with_capacity(WAITING_MAX);
        let mut fds = [PollFd::new(uffd.as_fd(), PollFlags::POLLIN), PollFd::new(self.stop.as_fd(), PollFlags::POLLIN)];
        while !self.stopping.load(Ordering::Acquire) {
            let timeout = if pending.is_empty() { PollTimeout::NONE } else { PollTimeout::ZERO };
            match poll(&mut fds, timeout) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(io::Error::from(errno).into()),
            }
            uffd.read(&mut events, &mut |event| pending.push(event))?;
            let Some(_no_move) = self.pages.mapping.no_move() else {
                thread::yield_now();
                continue;
            };
            if has_helpers && pending.len() > 1 {
                self.burst.put(pending.drain(1..));
            }
            pending.drain(..).try_for_each(|event| self.serve(event, &mut buffer))?;
            while has_helpers && let Some(event) = self.burst.take() {
                self.serve(event, &mut buffer)?;
            }
        }
        Ok(())
    }

    /// Serves faults that come while others are served.
    pub(super) fn help_with_faults(&self) -> Result<(), Failure> {
        self.count_time()?;
        let mut buffer = PageBuffer::new(AHEAD_MAX)?;
        while let Some(event) = self.burst.wait(|| self.stopping.load(Ordering::Acquire)) {
            // Whoever moves a mapping waits for the thread that reads, not for this one.
            let _no_move = self.pages.mapping.wait_for_moves();
            self.serve(event, &mut buffer)?;
        }
        Ok(())
    }

    /// This thread's CPU time is what faults cost.
    fn count_time(&self) -> Result<(), Failure> {
        sync::lock(&self.fault_clocks).push(ThreadClock::this()?);
        Ok(())
    }

    fn serve(&self, event: FaultEvent, buffer: &mut PageBuffer) -> Result<(), Failure> {
        let counters = &self.pages.counters;
        let kind = match event.kind {
            FaultKind::Missing => &counters.faults_missing_total,
            FaultKind::Minor => &counters.faults_minor_total,
            FaultKind::WriteProtect => &counters.faults_write_protect_total,
        };
        kind.fetch_add(1, Ordering::Relaxed);
        let Some(gfn) = self.pages.mapping.gfn(event.address) else { return Ok(()) };
        let waiting = Waiting { event, gfn, since: Instant::now(), clock_ms: self.wait_clock.shown(), starved: false };
        if !self.try_serve(waiting, buffer)? {
            counters.faults_without_credit_total.fetch_add(1, Ordering::Relaxed);
            self.let_wait(waiting);
            self.evictor.notify_one();
        } else if self.pages.credits.available() < LOW_PAGES {
            self.evictor.notify_one();
        }
        Ok(())
    }

    /// One place a thread: one that was woken by a signal and faulted again (on the same page or another)
    /// waits once.
    fn let_wait(&self, waiting: Waiting) {
        let waiting = Waiting { starved: true, ..waiting };
        let mut room = sync::lock(&self.waiting);
        match room.iter_mut().find(|other| other.event.tid == waiting.event.tid) {
            Some(other) => *other = Waiting { since: other.since, clock_ms: other.clock_ms, ..waiting },
            None => room.push(waiting),
        }
    }

    /// Serves a fault, or hands it to who may wait for the disk, unless there is no credit for it.
    pub(super) fn try_serve(&self, waiting: Waiting, buffer: &mut PageBuffer) -> Result<bool, Failure> {
        let seen = Cause::of(self.pages.table.peek(waiting.gfn), waiting.event.write);
        match self.pages.fault(waiting.gfn, waiting.event.write, buffer)? {
            Served::NoCredit => return Ok(false),
            Served::Done | Served::Moving => {
                self.served(waiting, seen);
            }
            Served::Read(page) => {
                if let Err(page) = self.reads.post(page, waiting) {
                    self.pages.put_back(page);
                }
            }
        }
        Ok(true)
    }

    /// Brings pages back from the disk, one at a time.
    pub(super) fn run_reader(&self) -> Result<(), Failure> {
        let mut buffer = PageBuffer::new(AHEAD_MAX)?;
        while let Some((page, waiting)) = self.reads.next(|| self.stopping.load(Ordering::Acquire)) {
            self.pages.swap_in(page, &mut buffer)?;
            self.served(waiting, Cause::Swapped);
            self.reads.done(waiting);
        }
        Ok(())
    }

    /// Counts a fault, and the stall it was.
    fn served(&self, waiting: Waiting, seen: Cause) {
        let cause = if waiting.starved { Cause::Memory } else { seen };
        let stalled_by = self.is_vcpu(waiting.event.tid).then_some(cause);
        self.pages.counters.fault_served(waiting.since.elapsed(), stalled_by);
    }

    pub(super) fn is_vcpu(&self, tid: i32) -> bool {
        sync::lock(&self.vcpu_tids).contains(&tid)
    }
}
