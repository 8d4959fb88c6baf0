//! Settings of the machine that a benchmark changes are put back whatever ends it: the end, an error, a
//! panic, Ctrl-C or SIGTERM.
//!
//! ```text
//!   Undo::register(steps) ──► list of all undos ◄── SIGINT, SIGTERM, SIGHUP: a thread waits for them
//!        │ drop (also while a panic unwinds)              │ all undos, then exit
//!        └────────────► its steps, in order ◄────────────┘
//! ```
//!
//! Not in here: SIGKILL, against which nothing helps.

use std::{
    ffi::CString,
    fs, io,
    os::unix::{ffi::OsStrExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{self, Command},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{SigSet, Signal, kill},
    unistd::Pid,
};

use crate::kit::error::Error;

/// What puts one thing back.
#[derive(Clone, Debug)]
pub enum Step {
    /// Writes this to a file.
    Write(PathBuf, String),
    /// Asks a process to end.
    Terminate(Pid),
    /// Takes a swap device out of use.
    SwapOff(PathBuf),
    /// Removes a file.
    RemoveFile(PathBuf),
    /// Kills whoever is in a cgroup, and removes it.
    RemoveCgroup(PathBuf),
}

/// How long the processes of a cgroup may take to be gone.
const CGROUP_LIMIT: Duration = Duration::from_secs(10);

static UNDOS: Mutex<Vec<(u64, Vec<Step>)>> = Mutex::new(Vec::new());

/// Dropping it puts things back.
#[derive(Debug)]
pub struct Undo(u64);

impl Undo {
    /// `steps` are taken, in order, when this is dropped or a signal ends the process. To be called *before*
    /// a setting is changed.
    pub fn register(steps: Vec<Step>) -> Undo {
        let mut undos = UNDOS.lock().unwrap_or_else(PoisonError::into_inner);
        let number = undos.last().map_or(0, |(number, _)| number + 1);
        undos.push((number, steps));
        Undo(number)
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        let mut undos = UNDOS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = undos.iter().position(|(number, _)| *number == self.0) {
            take(&undos.remove(at).1);
        }
    }
}

/// Has signals that end the process put all settings back first. To be called before any other thread is
/// started: threads inherit that these signals are blocked, so that they come to the one thread that waits
/// for them.
pub fn put_back_on_signals() -> Result<(), Error> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    signals.thread_block().map_err(Error::system("blocking signals"))?;
    let wait = move || {
        let signal = loop {
            if let Ok(signal) = signals.wait() {
                break signal;
            }
        };
        let undos = UNDOS.lock().unwrap_or_else(PoisonError::into_inner);
        undos.iter().rev().for_each(|(_, steps)| take(steps));
        eprintln!("ballast-bench: ended by {signal}; the machine's settings are as they were");
        process::exit(128 + signal as i32);
    };
    thread::Builder::new().name("signals".into()).spawn(wait).map_err(Error::system("starting a thread"))?;
    Ok(())
}

/// Has a program that is started heed signals: it would inherit that they are blocked here, and
/// [`Step::Terminate`] would do nothing.
pub fn heed_signals(command: &mut Command) -> &mut Command {
    let unblock = || SigSet::all().thread_unblock().map_err(io::Error::from);
    // SAFETY: between fork and exec it makes one system call, and allocates nothing.
    unsafe { command.pre_exec(unblock) }
}

/// Changes a setting whose undoing is registered. Once a signal has begun to put settings back, it never
/// returns.
pub fn change(path: &Path, value: &str) -> Result<(), Error> {
    let _undos = UNDOS.lock().unwrap_or_else(PoisonError::into_inner);
    fs::write(path, value).map_err(|source| Error::File { path: path.to_owned(), source })
}

fn take(steps: &[Step]) {
    for step in steps {
        let taken = match step {
            Step::Write(path, value) => fs::write(path, value),
            // One that is gone already is where it should be.
            Step::Terminate(pid) => kill(*pid, Signal::SIGTERM).or(Ok(())),
            Step::SwapOff(path) => swap_off(path),
            Step::RemoveFile(path) => fs::remove_file(path).or_else(unless_missing),
            Step::RemoveCgroup(path) => remove_cgroup(path).or_else(unless_missing),
        };
        if let Err(error) = taken {
            eprintln!("ballast-bench: {step:?}: {error}");
        }
    }
}

fn unless_missing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// Takes a swap device out of use; one that is not in use is where it should be.
fn swap_off(path: &Path) -> io::Result<()> {
    let name = c_path(path);
    // SAFETY: the path is a string that ends with 0.
    match unsafe { libc::swapoff(name.as_ptr()) } {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            error if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => Ok(()),
            error => Err(error),
        },
    }
}

/// A path as system calls take it.
pub fn c_path(path: &Path) -> CString {
    // No path that was opened has a 0 in it; an empty one is refused by the kernel.
    CString::new(path.as_os_str().as_bytes()).unwrap_or_default()
}

/// Processes take a moment to be gone once they are killed, so it tries for a while.
fn remove_cgroup(directory: &Path) -> io::Result<()> {
    let begun = Instant::now();
    loop {
        let members = fs::read_to_string(directory.join("cgroup.procs"))?;
        for pid in members.lines().filter_map(|line| line.parse().ok()) {
            // One that is gone already is where it should be.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        match fs::remove_dir(directory) {
            Err(_) if begun.elapsed() < CGROUP_LIMIT => thread::sleep(Duration::from_millis(5)),
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn a_program_started_where_signals_are_blocked_can_be_terminated() {
        let started = thread::spawn(|| {
            SigSet::all().thread_block().unwrap();
            heed_signals(Command::new("sleep").arg("60")).spawn().unwrap()
        });
        let mut child = started.join().unwrap();
        drop(Undo::register(vec![Step::Terminate(Pid::from_raw(child.id() as i32))]));
        let begun = Instant::now();
        while child.try_wait().unwrap().is_none() && begun.elapsed() < CGROUP_LIMIT {
            thread::yield_now();
        }
        // Nothing to kill if it has ended.
        let ended = child.try_wait().unwrap();
        let _ = child.kill();
        assert_eq!(ended.and_then(|exit| exit.signal()), Some(Signal::SIGTERM as i32));
    }

    #[test]
    fn a_panic_puts_settings_back() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("setting");
        fs::write(&file, "old").unwrap();
        let path = file.clone();
        let panicked = thread::spawn(move || {
            let _undo = Undo::register(vec![
                Step::Write(path.clone(), "older".into()),
                Step::Write(path.clone(), "old".into()),
            ]);
            fs::write(&path, "new").unwrap();
            panic!("on purpose");
        });
        assert!(panicked.join().is_err());
        assert_eq!(fs::read_to_string(&file).unwrap(), "old");
    }
}
