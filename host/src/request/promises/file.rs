//! A directory of promises: files that are locked as long as their process lives.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::libc;
use rustix::process::getuid;
use serde::{Deserialize, Serialize};

use crate::lock_file::{self, Locked, is_locked, lock};

/// What one run has promised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promised {
    /// Its host process.
    pub pid: u32,
    /// When it began, seconds since 1970.
    pub started_unix_seconds: u64,
    /// Host memory that it may use, bytes.
    pub budget_bytes: u64,
    /// RAM of its guests, bytes.
    pub promised_bytes: u64,
    /// Its control group, as the kernel names it: what limits one run's memory may be nothing to another's.
    pub group: String,
}

/// How long a directory may be held by others: each takes a few milliseconds.
const TURN_MAX: Duration = Duration::from_secs(2);
/// A promise has some 200 bytes, and the name of a group.
const FILE_BYTES_MAX: u64 = 16 << 10;

/// A directory of one's own, in which nobody else can write.
#[derive(Debug)]
pub(super) struct Directory(PathBuf);

impl Directory {
    /// The directory at `path`, made if it is not there.
    pub(super) fn ensure(path: &Path) -> io::Result<Directory> {
        let uid = getuid().as_raw();
        // Root's promises are there for everybody to see.
        let made = DirBuilder::new().mode(if uid == 0 { 0o755 } else { 0o700 }).create(path);
        made.or_else(|error| if error.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(error) })?;
        check(path, uid)?;
        Ok(Directory(path.to_owned()))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Waits until nobody else looks and promises here.
    pub(super) fn turn(&self) -> io::Result<Locked> {
        lock_file::turn(&self.0.join("lock"), TURN_MAX)
    }

    /// Writes a promise, in the place of an earlier one of that name.
    pub(super) fn publish(&self, name: &str, promised: &Promised) -> io::Result<Locked> {
        let hidden = self.0.join(format!(".{name}"));
        // Not for others to open before it is locked.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&hidden)?;
        let written = lock(&file)
            .and_then(|_| file.write_all(&serde_json::to_vec(promised)?))
            .and_then(|()| file.set_permissions(Permissions::from_mode(0o644)))
            .and_then(|()| fs::rename(&hidden, self.0.join(name)));
        if written.is_err() {
            // What is not there need not be removed.
            let _ = fs::remove_file(&hidden);
        }
        written.map(|()| Locked(file))
    }

    pub(super) fn remove(&self, name: &str) {
        if let Err(error) = fs::remove_file(self.0.join(name)) {
            tracing::warn!("{}: {error}", self.0.join(name).display());
        }
    }

    /// Removes what runs left that were killed. Only while it is one's turn: a file that is being written is
    /// not locked yet.
    pub(super) fn remove_stale(&self) {
        for path in files(&self.0, &["run-", ".run-"]) {
            if open(&path).and_then(|file| is_locked(&file)).is_ok_and(|locked| !locked) {
                tracing::info!("{}: of a run that was killed; removed", path.display());
                let _ = fs::remove_file(path);
            }
        }
    }

    /// What is promised in the directory at `path` by runs that live; but for the file of one name. What
    /// cannot be believed is named.
    pub(super) fn living(path: &Path, but_for: &str) -> Vec<Promised> {
        let Ok(found) = fs::symlink_metadata(path) else { return Vec::new() };
        let believed = if found.uid() == 0 { 0 } else { getuid().as_raw() };
        if let Err(error) = check(path, believed) {
            tracing::warn!("{}: {error}; what it says is promised does not count", path.display());
            return Vec::new();
        }
        let others = files(path, &["run-"]).filter(|file| file.file_name() != Some(but_for.as_ref()));
        others.filter_map(|file| read(&file, found.uid())).collect()
    }
}

/// A directory, not a link to one, in which only its owner, that user, can write.
fn check(path: &Path, uid: u32) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    let wrong = match found.mode() & 0o022 {
        _ if !found.is_dir() => "is no directory".to_owned(),
        _ if found.uid() != uid => format!("is user {}'s, not user {uid}'s", found.uid()),
        0 => return Ok(()),
        _ => format!("others can write to it, its mode is {:o}; chmod go-w", found.mode() & 0o7777),
    };
    Err(io::Error::new(io::ErrorKind::PermissionDenied, wrong))
}

fn files(directory: &Path, prefixes: &'static [&str]) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let is_ours = |name: &str| prefixes.iter().any(|prefix| name.starts_with(prefix));
    entries.filter(move |entry| entry.file_name().to_str().is_some_and(is_ours)).map(|entry| entry.path())
}

fn open(path: &Path) -> io::Result<File> {
    // Neither another file by way of a link, nor for ever at a pipe.
    OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)
}

/// The promise in a file of that user, if its run lives.
fn read(path: &Path, uid: u32) -> Option<Promised> {
    let promised = || -> io::Result<Option<Promised>> {
        let file = open(path)?;
        let found = file.metadata()?;
        if !found.is_file() || found.uid() != uid {
            return Err(io::Error::other(format!("is no file of user {uid}")));
        }
        if !is_locked(&file)? {
            return Ok(None);
        }
        let mut text = String::new();
        file.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
        Ok(Some(serde_json::from_str(&text)?))
    };
    promised().unwrap_or_else(|error| {
        // One that is over now is no news.
        if error.kind() != io::ErrorKind::NotFound {
            tracing::warn!("{}: {error}; what it promises does not count", path.display());
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn promised(pid: u32) -> Promised {
        Promised { pid, started_unix_seconds: 1, budget_bytes: 5, promised_bytes: 9, group: "0::/a\n".into() }
    }

    fn directory() -> (tempfile::TempDir, Directory) {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::ensure(&folder.path().join("ballast")).unwrap();
        (folder, directory)
    }

    #[test]
    fn a_promise_lasts_as_long_as_its_lock() {
        let (_folder, directory) = directory();
        let living = |but_for: &str| Directory::living(directory.path(), but_for);
        let locked = directory.publish("run-1.json", &promised(1)).unwrap();
        let again = directory.publish("run-1.json", &promised(2)).unwrap();
        drop(locked);
        assert_eq!((living(""), living("run-1.json")), (vec![promised(2)], vec![]));
        directory.remove_stale();
        assert_eq!(living(""), [promised(2)]);
        drop(again);
        assert_eq!(living(""), []);
        assert!(directory.path().join("run-1.json").exists());
        directory.remove_stale();
        assert!(fs::read_dir(directory.path()).unwrap().next().is_none());
    }

    #[test]
    fn one_promises_at_a_time() {
        let (_folder, directory) = directory();
        let turn = directory.turn().unwrap();
        let refused = directory.turn().unwrap_err().to_string();
        assert!(refused.contains("another run"), "{refused}");
        drop(turn);
        directory.turn().unwrap();
    }

    #[test]
    fn directories_and_files_that_others_could_have_made_are_not_believed() {
        let (folder, directory) = directory();
        let path = directory.path().to_owned();
        let _real = directory.publish("run-1.json", &promised(1)).unwrap();
        fs::write(path.join("run-2.json"), "no promise").unwrap();
        let other = OpenOptions::new().write(true).open(path.join("run-2.json")).unwrap();
        assert!(lock(&other).unwrap());
        symlink(path.join("run-1.json"), path.join("run-3.json")).unwrap();
        assert_eq!(Directory::living(&path, ""), [promised(1)]);
        let link = folder.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(Directory::ensure(&link).is_err() && Directory::living(&link, "").is_empty());
        fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
        assert!(Directory::ensure(&path).is_err() && Directory::living(&path, "").is_empty());
    }
}
