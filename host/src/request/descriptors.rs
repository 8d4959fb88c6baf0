//! Descriptors: what guests, the endpoint and the host itself need of them, found out before any guest
//! starts.
//!
//! ```text
//!   soft limit --raise--> hard limit >= open already + the endpoint's most + starting + guests * each
//! ```
//!
//! A soft limit is there for programs that use `select`, which this is not. VMMs inherit the raised one: they
//! need few, and could raise it themselves. What other processes leave of the system's own table
//! (`fs.file-max`) cannot be reserved, so a start that fails for want of a descriptor is tried again
//! ([`Patience`]).

use std::error::Error as StdError;
use std::time::Duration;
use std::{fs, io};

use nix::errno::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::GUESTS_MAX;
use crate::error::Error;
use crate::show::http::peers::DESCRIPTORS_MAX;

/// What a guest keeps open in the host: its socket, its process, its standard error, and two of its domain,
/// if it is alone in it; one to spare.
const GUEST: u64 = 6;
/// What a kernel tier keeps open for each guest besides: its group's files.
const GROUP: u64 = crate::tier::GROUP_FILES;
/// What starting a VMM, sampling memory and looking at the machine take for a moment. An estimate: twelve
/// were seen.
const MOMENTARY: u64 = 32;

/// Raises what this process may have open to what it is allowed to, and says how many that is.
pub(crate) fn raise() -> Result<u64, String> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
            .map_err(|errno| format!("raising the limit of open files to the hard one: {errno}"))?;
    }
    Ok(maximum.unwrap_or(u64::MAX))
}

/// Raises the limit, and refuses more guests, with a kernel tier or without, than it leaves room for.
pub(crate) fn require(guests: u32, with_tier: bool) -> Result<(), String> {
    let open = fs::read_dir("/proc/self/fd").map_err(|error| format!("/proc/self/fd: {error}; is /proc mounted?"))?;
    let groups = if with_tier { GROUP * u64::from(guests) } else { 0 };
    enough(raise()?, open.count() as u64 + groups, guests)
}

/// How many guests the limit is enough for, for `ballast doctor`.
pub(crate) fn detail() -> Result<String, String> {
    let limit = raise()?;
    let guests = limit.saturating_sub(needed(0, 0)) / GUEST;
    let most = guests.min(GUESTS_MAX.into());
    if most == 0 { Err(too_few(limit, needed(0, 1), 1)) } else { Ok(format!("{limit}: enough for {most} guests")) }
}

fn needed(open: u64, guests: u32) -> u64 {
    open + DESCRIPTORS_MAX + MOMENTARY + GUEST * u64::from(guests)
}

fn enough(limit: u64, open: u64, guests: u32) -> Result<(), String> {
    let needed = needed(open, guests);
    if needed > limit { Err(too_few(limit, needed, guests)) } else { Ok(()) }
}

fn too_few(limit: u64, needed: u64, guests: u32) -> String {
    format!(
        "this process may open {limit} files, {guests} guests take up to {needed}: ulimit -n {needed}, or fewer guests"
    )
}

/// How often, and how long, a start is tried again that failed for want of a descriptor: for about a minute,
/// every 5 s in the end.
#[derive(Debug)]
pub(crate) struct Patience {
    tries_left: u32,
    pause: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience { tries_left: 16, pause: Duration::from_millis(100) }
    }
}

impl Patience {
    const PAUSE_MAX: Duration = Duration::from_secs(5);

    /// How long to wait before the next try; `None` if waiting would not mend that error, or did not.
    pub(crate) fn after(&mut self, error: &Error) -> Option<Duration> {
        self.tries_left = self.tries_left.checked_sub(1).filter(|_| is_shortage(error))?;
        let pause = self.pause;
        self.pause = (2 * pause).min(Self::PAUSE_MAX);
        Some(pause)
    }
}

/// Whether an error comes down to a descriptor that there was none of, for this process or on this system.
fn is_shortage(error: &(dyn StdError + 'static)) -> bool {
    let errno = match (error.downcast_ref::<io::Error>(), error.downcast_ref::<Errno>()) {
        (Some(error), _) => match (error.raw_os_error(), error.get_ref()) {
            (Some(errno), _) => Some(Errno::from_raw(errno)),
            // What an `io::Error` was made of is not its source.
            (None, Some(inner)) => return is_shortage(inner),
            (None, None) => None,
        },
        (None, errno) => errno.copied(),
    };
    matches!(errno, Some(Errno::EMFILE | Errno::ENFILE)) || error.source().is_some_and(is_shortage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_few_descriptors_name_how_many_are_needed() {
        let needed = needed(20, 40);
        assert_eq!(enough(needed, 20, 40), Ok(()));
        let missing = enough(needed - 1, 20, 40).unwrap_err();
        assert!(missing.contains(&format!("ulimit -n {needed}")) && missing.contains("40 guests"), "{missing}");
        assert!(needed < 1024, "forty guests fit what most systems allow");
    }

    #[test]
    fn a_start_is_tried_again_for_want_of_a_descriptor_and_for_nothing_else_and_not_for_ever() {
        let spawn = |source| Error::Spawn { guest: "guest0".into(), source };
        let store = dedup::Error::Store { what: "reopen", source: Errno::ENFILE };
        let swap = pager::SwapFileError::Io {
            directory: "/swap".into(),
            doing: "creating",
            source: io::Error::from_raw_os_error(Errno::EMFILE as i32),
        };
        let shortages = [
            spawn(io::Error::from_raw_os_error(Errno::EMFILE as i32)),
            spawn(io::Error::other(swap)),
            spawn(io::Error::other(dedup::Error::Store { what: "reopen", source: Errno::EMFILE })),
            Error::FrameStore(store),
        ];
        for shortage in &shortages {
            let mut patience = Patience::default();
            let pauses: Vec<_> = std::iter::from_fn(|| patience.after(shortage)).collect();
            let waited: Duration = pauses.iter().sum();
            assert!(
                (50..70).contains(&waited.as_secs()) && pauses[0] < Duration::from_secs(1),
                "{shortage}: {pauses:?}"
            );
        }
        for other in [spawn(io::Error::from_raw_os_error(Errno::ENOENT as i32)), spawn(io::Error::other("x"))] {
            assert_eq!(Patience::default().after(&other), None, "{other}");
        }
    }
}
