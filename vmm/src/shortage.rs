//! Times at which the kernel has no memory for this process: its memory cgroup is at its limit, and whoever
//! makes room is at it. System calls then fail that are right otherwise, and are to be tried again.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    thread,
    time::Duration,
};

/// For so long in a row that is believed.
pub const LIMIT: Duration = Duration::from_secs(10);
/// Between two tries.
pub const PAUSE: Duration = Duration::from_millis(1);

/// Whether that may be what a system call says: ENOBUFS of sockets, and EFAULT where the kernel has no memory
/// for a page it is to read or to write.
pub fn is_one(errno: i32) -> bool {
    matches!(errno, libc::EFAULT | libc::ENOMEM | libc::ENOBUFS)
}

/// A socket that waits it out.
#[derive(Debug)]
pub struct Patient<S = UnixStream>(pub S);

impl<S: Read> Read for Patient<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        patiently(|| self.0.read(buffer))
    }
}

impl<S: Write> Write for Patient<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        patiently(|| self.0.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn patiently(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    let mut tries = 0;
    loop {
        match call() {
            Err(error) if error.raw_os_error().is_some_and(is_one) && PAUSE * tries < LIMIT => {
                tries += 1;
                thread::sleep(PAUSE);
            }
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails so often before it takes anything.
    struct Short(u32, i32);

    impl Write for Short {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.saturating_sub(1);
            if self.0 > 0 { Err(io::Error::from_raw_os_error(self.1)) } else { Ok(bytes.len()) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_message_outlasts_a_shortage_and_no_other_error() {
        for (errno, outlasts) in [(libc::ENOBUFS, true), (libc::EFAULT, true), (libc::EPIPE, false)] {
            assert_eq!(Patient(Short(3, errno)).write_all(b"word").is_ok(), outlasts, "{errno}");
        }
    }
}
