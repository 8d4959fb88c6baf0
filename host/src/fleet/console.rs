//! `--console`: standard input and output are the first guest's console.
//!
//! ```text
//!   standard input  ──thread──► socket ──► the guest's 16550       Ctrl-]: the run ends, as by SIGTERM
//!   standard output ◄─thread─── socket ◄── the guest's 16550
//! ```
//!
//! A terminal is in raw mode meanwhile: all keys but that one are the guest's.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard};
use std::thread::{self, JoinHandle};

use rustix::process::{Signal, getpid, kill_process};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::sync::lock;

/// Ctrl-].
const END: u8 = 0x1d;
/// What is read at once: more than anybody types.
const CHUNK_BYTES: usize = 4096;

/// What is to be undone and waited for at the end.
static ATTACHED: Mutex<Option<Attached>> = Mutex::new(None);

struct Attached {
    output: JoinHandle<()>,
    /// The terminal as it was.
    before: Option<Termios>,
}

/// Attaches them; what the guest's VMM is to inherit.
pub(crate) fn attach() -> io::Result<OwnedFd> {
    let (ours, theirs) = UnixStream::pair()?;
    let input = ours.try_clone()?;
    let output = thread::Builder::new().name("console out".into()).spawn(move || show(ours))?;
    thread::Builder::new().name("console in".into()).spawn(move || listen(input))?;
    *attached() = Some(Attached { output, before: raw_terminal() });
    Ok(theirs.into())
}

/// Shows what is left, once the guest's VMM has ended, and gives the terminal back.
pub(crate) fn detach() {
    let Some(Attached { output, before }) = attached().take() else { return };
    // It ends with the socket.
    let _ = output.join();
    before.iter().for_each(|before| _ = tcsetattr(io::stdin(), OptionalActions::Flush, before));
}

/// Has the terminal, if there is one, hand on every key as it is.
fn raw_terminal() -> Option<Termios> {
    let before = tcgetattr(io::stdin()).ok()?;
    let mut raw = before.clone();
    raw.make_raw();
    tcsetattr(io::stdin(), OptionalActions::Now, &raw).ok()?;
    Some(before)
}

fn listen(mut guest: UnixStream) {
    let mut bytes = [0; CHUNK_BYTES];
    loop {
        let read = match io::stdin().read(&mut bytes) {
            Ok(0) | Err(_) => return,
            Ok(read) => &bytes[..read],
        };
        let end = read.iter().position(|&byte| byte == END);
        if guest.write_all(&read[..end.unwrap_or(read.len())]).is_err() {
            return;
        }
        if end.is_some() {
            // It is this process: it cannot fail.
            let _ = kill_process(getpid(), Signal::TERM);
        }
    }
}

fn show(mut guest: UnixStream) {
    let mut bytes = [0; CHUNK_BYTES];
    while let Ok(read @ 1..) = guest.read(&mut bytes) {
        // Whoever closed our standard output still wants the run.
        let _ = io::stdout().write_all(&bytes[..read]).and_then(|()| io::stdout().flush());
    }
}

fn attached() -> MutexGuard<'static, Option<Attached>> {
    lock(&ATTACHED)
}
