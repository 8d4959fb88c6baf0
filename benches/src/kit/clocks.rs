//! Who used how much CPU, by the scheduler's own account (`/proc/*/schedstat`: nanoseconds on a CPU).

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use nix::time::{ClockId, clock_gettime};

use crate::kit::error::Error;

/// CPU time of this process so far.
pub fn process() -> Result<Duration, Error> {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map(Duration::from).map_err(Error::system("asking for CPU time"))
}

/// CPU time of the calling thread so far.
pub fn this_thread() -> Result<Duration, Error> {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).map_err(Error::system("asking for CPU time"))
}

/// CPU time so far of this process's living threads, by their names.
pub fn threads() -> Result<BTreeMap<String, Duration>, Error> {
    let tasks = Path::new("/proc/self/task");
    let listed = fs::read_dir(tasks).map_err(|source| Error::File { path: tasks.into(), source })?;
    let mut times = BTreeMap::<String, Duration>::new();
    for task in listed.flatten() {
        // A thread that has ended meanwhile has no files any more.
        if let (Ok(name), Some(time)) = (fs::read_to_string(task.path().join("comm")), on_cpu(&task.path())) {
            *times.entry(name.trim_end().to_owned()).or_default() += time;
        }
    }
    Ok(times)
}

/// CPU of this process's threads by name since `before`, as parts of one core over `window`; nothing of those
/// that did nothing.
pub fn shares_since(before: &BTreeMap<String, Duration>, window: Duration) -> Result<BTreeMap<String, f64>, Error> {
    let share = |(name, time): (String, Duration)| {
        let used = time.saturating_sub(before.get(&name).copied().unwrap_or_default());
        (name, used.as_secs_f64() / window.as_secs_f64())
    };
    Ok(threads()?.into_iter().map(share).filter(|(_, share)| *share >= 1e-6).collect())
}

/// Shares as text.
pub fn shares_text(shares: &BTreeMap<String, f64>) -> String {
    let texts: Vec<_> = shares.iter().map(|(name, share)| format!("{name} {:.3} %", share * 100.0)).collect();
    texts.join(", ")
}

/// CPU time of ksmd so far.
pub fn ksmd() -> Result<Duration, Error> {
    let processes = fs::read_dir("/proc").map_err(|source| Error::File { path: "/proc".into(), source })?;
    let is_ksmd = |path: &Path| fs::read_to_string(path.join("comm")).is_ok_and(|name| name == "ksmd\n");
    let ksmd = processes.flatten().map(|process| process.path()).find(|path| is_ksmd(path));
    ksmd.and_then(|path| on_cpu(&path)).ok_or(Error::NoKsm)
}

fn on_cpu(task: &Path) -> Option<Duration> {
    let schedstat = fs::read_to_string(task.join("schedstat")).ok()?;
    schedstat.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use std::{hint::black_box, time::Instant};

    use super::*;

    #[test]
    fn work_is_seen_on_the_thread_that_did_it() {
        let worked = std::thread::Builder::new().name("worked".into()).spawn(|| {
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(50) {
                black_box(begun);
            }
            threads().unwrap()["worked"]
        });
        let cpu = worked.unwrap().join().unwrap();
        assert!(cpu >= Duration::from_millis(5) && cpu <= process().unwrap(), "{cpu:?}");
    }
}
