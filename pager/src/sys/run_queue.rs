//! How long a thread runs, and how long it waits for a CPU.

use std::{fs::File, os::unix::fs::FileExt, time::Duration};

/// What a thread did with its time since it began.
#[derive(Clone, Copy, Debug)]
pub struct RunTimes {
    /// On a CPU.
    pub ran: Duration,
    /// Ready to run, without one.
    pub waited: Duration,
}

/// A thread's place in the scheduler's books: `/proc/thread-self/schedstat` (Linux
/// `Documentation/scheduler/sched-stats.rst`).
pub struct RunQueue(Option<File>);

impl RunQueue {
    /// The calling thread's. Kernels without these books have none.
    pub fn this() -> RunQueue {
        RunQueue(File::open("/proc/thread-self/schedstat").ok())
    }

    /// Until now; nothing where there are no books.
    pub fn read(&self) -> Option<RunTimes> {
        let mut text = [0; 64];
        let length = self.0.as_ref()?.read_at(&mut text, 0).ok()?;
        let mut times = std::str::from_utf8(&text[..length]).ok()?.split_ascii_whitespace().map(str::parse);
        let mut next = || times.next()?.ok().map(Duration::from_nanos);
        Some(RunTimes { ran: next()?, waited: next()? })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_thread_that_computes_runs_or_waits_for_a_cpu_all_the_time() {
        let run_queue = RunQueue::this();
        let Some(before) = run_queue.read() else { return };
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(50) {}
        let after = run_queue.read().unwrap();
        let (ran, waited) = (after.ran - before.ran, after.waited - before.waited);
        assert!(ran > Duration::ZERO && ran + waited >= Duration::from_millis(40), "{before:?} {after:?}");
    }
}
