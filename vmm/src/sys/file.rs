//! A file's bytes as a mapping: they are the page cache's, not this process's own memory, so a guest's
//! allocation need not hold what it is loaded from.

use std::{fs::File, io, ops::Deref, os::fd::AsRawFd, ptr, ptr::NonNull, slice};

/// All bytes of a file, read-only.
#[derive(Debug)]
pub struct FileBytes {
    address: NonNull<u8>,
    bytes: usize,
}

impl FileBytes {
    /// Maps all of `file` as it is now. Nobody may shorten it while this lives: whoever reads what is gone
    /// ends this process (SIGBUS), and with it the one guest.
    pub fn map(file: &File) -> io::Result<Self> {
        let bytes = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        if bytes == 0 {
            return Ok(Self { address: NonNull::dangling(), bytes });
        }
        let (protection, flags) = (libc::PROT_READ, libc::MAP_PRIVATE);
        // SAFETY: a new mapping at an address of the kernel's choice changes no memory in use.
        let address = unsafe { libc::mmap(ptr::null_mut(), bytes, protection, flags, file.as_raw_fd(), 0) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let address = NonNull::new(address.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Self { address, bytes })
    }
}

impl Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: mapped for as long as `self` lives, and this long; nobody in this process writes to it. A
        // file that others change meanwhile is theirs to answer for: what is read of it is checked, and goes
        // into one guest.
        unsafe { slice::from_raw_parts(self.address.as_ptr(), self.bytes) }
    }
}

impl Drop for FileBytes {
    fn drop(&mut self) {
        if self.bytes > 0 {
            // SAFETY: this is the mapping `map` made; all references into it borrow `self`.
            unsafe { libc::munmap(self.address.as_ptr().cast(), self.bytes) };
        }
    }
}

// SAFETY: memory belongs to no thread, and nobody writes to it.
unsafe impl Send for FileBytes {}
// SAFETY: as above.
unsafe impl Sync for FileBytes {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_its_bytes_and_an_empty_one_has_none() {
        let path = std::env::temp_dir().join(format!("ballast-bytes-{}", std::process::id()));
        for content in [&b""[..], b"kernel"] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(&*FileBytes::map(&File::open(&path).unwrap()).unwrap(), content);
        }
        std::fs::remove_file(path).unwrap();
    }
}
