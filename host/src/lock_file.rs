//! Files that are locked as long as somebody has them open: by what they are known to live, and take turns.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

const TURN_INTERVAL: Duration = Duration::from_millis(10);

/// A file that is locked until this goes.
#[derive(Debug)]
pub(crate) struct Locked(#[allow(dead_code, reason = "held, not read")] pub(crate) File);

/// Waits until nobody else has locked the file at `path`, which is made if it is not there, but not longer
/// than this.
pub(crate) fn turn(path: &Path, most: Duration) -> io::Result<Locked> {
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let file = options.open(path)?;
    let deadline = Instant::now() + most;
    while !lock(&file)? {
        if Instant::now() >= deadline {
            let message = format!("held by another run for {most:?}; is one stopped while it starts?");
            return Err(io::Error::new(io::ErrorKind::WouldBlock, message));
        }
        thread::sleep(TURN_INTERVAL);
    }
    Ok(Locked(file))
}

/// Locks a file for writing, for as long as this description of it is open; whether it was free.
pub(crate) fn lock(file: &File) -> io::Result<bool> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_WRLCK))) {
        Ok(_) => Ok(true),
        Err(nix::Error::EAGAIN | nix::Error::EACCES) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether somebody holds it so. Asked as a reader: other readers' locks, which anybody could take, do not
/// count.
pub(crate) fn is_locked(file: &File) -> io::Result<bool> {
    let mut found = whole_file(libc::F_RDLCK);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut found))?;
    Ok(i32::from(found.l_type) != libc::F_UNLCK)
}

/// All of a file.
fn whole_file(kind: i32) -> libc::flock {
    libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_has_it_at_a_time_and_a_readers_lock_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = turn(&path, Duration::ZERO).unwrap();
        let reader = File::open(&path).unwrap();
        assert!(is_locked(&reader).unwrap());
        let refused = turn(&path, Duration::ZERO).unwrap_err();
        assert!(refused.to_string().contains("held by another run"), "{refused}");
        drop(held);
        fcntl(&reader, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_RDLCK))).unwrap();
        assert!(!is_locked(&File::open(&path).unwrap()).unwrap());
    }
}
