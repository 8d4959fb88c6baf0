//! The thread that reads the control socket.
//!
//! ```text
//!   socket ──► control thread ──┬── Merge, Hurry ──► the scanner's letter box
//!                               └── all else ──────► main thread
//! ```
//!
//! The store waits for the scanner's answers, and with it all guests that want the same content. So what is
//! for the scanner does not wait until the main thread has time.

use std::{os::unix::net::UnixStream, sync::mpsc, thread};

use control::{ToVmm, read_frame};
use dedup::ScannerHandle;

use crate::{Error, shortage::Patient};

/// Messages that wait for the main thread: what the host says in about 20 seconds, if it says something new
/// at each of its ticks. Then the socket waits, and at last the host ends a VMM that does not read.
const MESSAGES_MAX: usize = 256;

/// Reads the host's messages. The channel closes with the socket.
pub fn spawn(socket: UnixStream, scanner: ScannerHandle) -> Result<mpsc::Receiver<ToVmm>, Error> {
    let (sender, receiver) = mpsc::sync_channel(MESSAGES_MAX);
    let mut socket = Patient(socket);
    let read = move || {
        let mut buffer = Vec::new();
        loop {
            match read_frame(&mut socket, &mut buffer) {
                Ok(Some(ToVmm::Merge(answer))) => scanner.post(answer),
                Ok(Some(ToVmm::Hurry)) => scanner.hurry(),
                Ok(Some(message)) => {
                    if sender.send(message).is_err() {
                        return;
                    }
                }
                Ok(None) => return,
                Err(error) => return tracing::error!("{error}"),
            }
        }
    };
    thread::Builder::new().name("control".into()).spawn(read).map_err(Error::system("starting the control thread"))?;
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        sync::atomic::{AtomicBool, Ordering},
        time::Duration,
    };

    use control::{MergeAnswer, MergeRequest, encode};
    use dedup::{Backing, ScanMemory, Scanner, ScannerConfig};
    use wire::{Frame, Gfn, PageBytes, Run, Sharing};

    use super::*;

    /// A guest without a page that holds every frame.
    struct NoPages;

    impl ScanMemory for NoPages {
        fn pages(&self) -> u32 {
            0
        }
        fn populated_pages(&self) -> u64 {
            0
        }
        fn backing(&self, _: Gfn) -> Backing {
            Backing::Other
        }
        fn sample_private(&self, _: Run, _: &mut dyn FnMut(Gfn, u64)) {}
        fn read_held(&self, _: Gfn, _: &mut PageBytes) -> bool {
            false
        }
        fn share(&self, _: &[(Gfn, Frame)], _: &mut dyn FnMut(Gfn, Sharing)) {}
        fn drop_zero(&self, _: Run) -> u32 {
            0
        }
        fn reclaim_areas(&self, _: u32) -> u32 {
            0
        }
        fn is_published(&self, _: Frame) -> bool {
            false
        }
        fn take_hold_changes(&self, _: usize, _: &mut dyn FnMut(Frame, bool)) {}
        fn holds(&self, _: Frame) -> bool {
            true
        }
    }

    #[test]
    fn the_store_is_answered_while_the_main_thread_reads_nothing() {
        let (ours, mut host) = UnixStream::pair().unwrap();
        let scanner = Scanner::new(&NoPages, ScannerConfig::new(1));
        let messages = spawn(ours, scanner.handle()).unwrap();
        let say = |host: &mut UnixStream, message| host.write_all(&encode(&message).unwrap()).unwrap();
        say(&mut host, ToVmm::Run);
        say(&mut host, ToVmm::Merge(MergeAnswer::Retire(vec![Frame(3)])));
        say(&mut host, ToVmm::Stop);
        let (handle, stop) = (scanner.handle(), AtomicBool::new(false));
        let (sender, requests) = mpsc::channel();
        let answer = thread::scope(|scope| {
            scope.spawn(|| scanner.run(&stop, |request| sender.send(request).unwrap()));
            let answer = requests.recv_timeout(Duration::from_secs(30));
            stop.store(true, Ordering::Relaxed);
            handle.wake();
            answer
        });
        assert_eq!(answer, Ok(MergeRequest::Retired(vec![(Frame(3), true)])));
        drop(host);
        let left: Vec<ToVmm> = messages.iter().collect();
        assert!(matches!(left[..], [ToVmm::Run, ToVmm::Stop]), "{left:?}");
    }
}
