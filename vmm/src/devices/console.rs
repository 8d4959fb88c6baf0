//! The guest's 16550: what it prints becomes lines of the log; the last ones are kept, as they say how it
//! ended. With a socket, it goes there too, byte by byte, and what comes from there the guest reads.
//!
//! The guest is not trusted with the log either. Lines are cut at a bound, and control characters (terminal
//! escapes among them) are replaced. More lines than the log should hold are dropped and counted.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io::{self, Read, Write},
    os::{fd::AsRawFd, unix::net::UnixStream},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use nix::sys::socket::{MsgFlags, send};
use vm_superio::{Serial, Trigger, serial::NoEvents};
use vmm_sys_util::eventfd::EventFd;

use crate::{Error, board::MmioDevice, sync::lock};

/// Longest line, bytes: a panic message with its place fits.
pub const LINE_BYTES_MAX: usize = 512;
/// Lines let through at once: a guest's whole start or end.
const BURST_LINES: u32 = 64;
/// After a burst, one more line each so often.
const LINE_INTERVAL: Duration = Duration::from_millis(100);

/// What is read of the socket at once: as much as a 16550 holds.
const INPUT_BYTES: usize = 64;
/// How long the guest is waited for before it is tried again: while it tests its port nobody says a word.
const ROOM_WAIT: Duration = Duration::from_millis(100);

/// Registers of a 16550; the rest of its window reads as ones.
const REGISTERS: u64 = 8;

/// Lines that are kept: a kernel's panic with its trace, or its end.
const LAST_LINES: usize = 40;
/// What Linux says when it has given up (`kernel/panic.c`).
const PANIC: &str = "Kernel panic - not syncing: ";

/// By which it says that it is ready; a bare guest has no interrupts, and asks.
struct Interrupt(Option<EventFd>);

impl Trigger for Interrupt {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        // Fails only when the counter would overflow, and then it has been rung.
        self.0.iter().for_each(|event| _ = event.write(1));
        Ok(())
    }
}

/// The device.
pub struct Console {
    serial: Mutex<Serial<Interrupt, NoEvents, Lines>>,
    /// The guest has read something.
    room: Condvar,
}

impl Console {
    /// A console that hands its lines to `sink`.
    pub fn new(sink: impl FnMut(&str) + Send + 'static) -> Self {
        Self::with(Interrupt(None), None, Box::new(sink))
    }

    /// A console that hands its lines to the log, with the guest's name.
    pub fn to_log(guest: String) -> Self {
        Self::new(log(guest))
    }

    /// The same for a guest with interrupts: edges of its line ring `line`. With `socket`, a thread hands on
    /// what comes from there.
    pub fn attach(guest: String, line: EventFd, socket: Option<UnixStream>) -> Result<Arc<Self>, Error> {
        let failed = |error| Error::System { doing: "attaching the console", source: error };
        let output = socket.as_ref().map(UnixStream::try_clone).transpose().map_err(failed)?;
        let console = Arc::new(Self::with(Interrupt(Some(line)), output, Box::new(log(guest))));
        if let Some(socket) = socket {
            let console = console.clone();
            let listen = move || console.listen(socket);
            thread::Builder::new().name("console".into()).spawn(listen).map_err(failed)?;
        }
        Ok(console)
    }

    fn with(interrupt: Interrupt, socket: Option<UnixStream>, sink: Box<dyn FnMut(&str) + Send>) -> Self {
        let (line, last, limit) = (Vec::new(), VecDeque::new(), Limit::new(Instant::now()));
        let lines = Lines { line, last, panic: None, limit, sink, socket };
        Self { serial: Mutex::new(Serial::new(interrupt, lines)), room: Condvar::new() }
    }

    /// Hands on what comes from the socket, as the guest reads it, until it is closed.
    fn listen(&self, mut socket: UnixStream) {
        let mut bytes = [0; INPUT_BYTES];
        while let Ok(read @ 1..) = socket.read(&mut bytes) {
            let mut left = &bytes[..read];
            let mut serial = lock(&self.serial);
            while !left.is_empty() {
                // Nothing is taken while the guest tests its port, or has not read what was there before.
                let taken = serial.enqueue_raw_bytes(left).unwrap_or(0);
                left = &left[taken..];
                if taken == 0 {
                    serial = self.room.wait_timeout(serial, ROOM_WAIT).unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }

    /// The last lines, one that has no end yet among them.
    pub fn last_lines(&self) -> Vec<String> {
        let serial = lock(&self.serial);
        let Lines { line, last, .. } = serial.writer();
        let begun = (!line.is_empty()).then(|| readable(line));
        last.iter().cloned().chain(begun).collect()
    }

    /// What a kernel that has given up gave as its reason.
    pub fn panic(&self) -> Option<String> {
        lock(&self.serial).writer().panic.clone()
    }
}

impl MmioDevice for Console {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let ([byte], 0..REGISTERS) = (data, offset) {
            *byte = lock(&self.serial).read(offset as u8);
            self.room.notify_all();
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let ([byte], 0..REGISTERS) = (data, offset) {
            // `Lines` never fails.
            let _ = lock(&self.serial).write(offset as u8, *byte);
        }
    }
}

/// Collects bytes to lines.
struct Lines {
    line: Vec<u8>,
    last: VecDeque<String>,
    /// Why the kernel has given up. Its trace follows, and may be longer than what is kept.
    panic: Option<String>,
    limit: Limit,
    sink: Box<dyn FnMut(&str) + Send>,
    socket: Option<UnixStream>,
}

/// Hands lines to the log, with the guest's name.
fn log(guest: String) -> impl FnMut(&str) + Send + 'static {
    move |line| tracing::info!(target: "console", guest, "{line}")
}

impl Lines {
    fn end_line(&mut self) {
        let text = readable(&self.line);
        self.line.clear();
        if self.last.len() == LAST_LINES {
            self.last.pop_front();
        }
        self.last.push_back(text.clone());
        let reason = |at: usize| text[at + PANIC.len()..].to_owned();
        self.panic = self.panic.take().or_else(|| text.find(PANIC).map(reason));
        match self.limit.admit(Instant::now()) {
            Some(0) => (self.sink)(&text),
            Some(dropped) => (self.sink)(&format!("{text} ({dropped} lines before this one were dropped)")),
            None => {}
        }
    }
}

fn readable(line: &[u8]) -> String {
    String::from_utf8_lossy(line).replace(char::is_control, "\u{fffd}")
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(socket) = &self.socket {
            // A byte that it has no room for is lost: no vCPU waits for who reads too slowly.
            let _ = send(socket.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
        }
        for &byte in bytes {
            match byte {
                b'\n' => self.end_line(),
                b'\r' => {}
                _ => {
                    self.line.push(byte);
                    if self.line.len() == LINE_BYTES_MAX {
                        self.end_line();
                    }
                }
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Lines {
    /// What a guest said last, before it died in mid-line, is what one wants to read.
    fn drop(&mut self) {
        if !self.line.is_empty() {
            self.end_line();
        }
    }
}

/// A token bucket.
struct Limit {
    tokens: u32,
    dropped: u64,
    refilled: Instant,
}

impl Limit {
    fn new(now: Instant) -> Self {
        Self { tokens: BURST_LINES, dropped: 0, refilled: now }
    }

    /// Whether a line may pass; if so, how many were dropped since the last that did.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        let earned = now.saturating_duration_since(self.refilled).as_millis() / LINE_INTERVAL.as_millis();
        let earned = u32::try_from(earned).unwrap_or(BURST_LINES).min(BURST_LINES);
        if earned > 0 {
            self.tokens = (self.tokens + earned).min(BURST_LINES);
            self.refilled = now;
        }
        if self.tokens == 0 {
            self.dropped += 1;
            return None;
        }
        self.tokens -= 1;
        Some(std::mem::take(&mut self.dropped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines a console makes of `bytes`.
    fn lines(bytes: &[u8]) -> Vec<String> {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = lines.clone();
        let console = Console::new(move |line| sink.lock().unwrap().push(line.to_owned()));
        bytes.iter().for_each(|&byte| console.write(0, &[byte]));
        drop(console);
        Arc::into_inner(lines).unwrap().into_inner().unwrap()
    }

    #[test]
    fn bytes_become_lines_and_the_last_needs_no_end() {
        assert_eq!(lines(b"one\r\n\ntwo"), ["one", "", "two"]);
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let lines = lines(&[b'x'; 2 * LINE_BYTES_MAX + 1]);
        assert_eq!(lines.iter().map(String::len).collect::<Vec<_>>(), [LINE_BYTES_MAX, LINE_BYTES_MAX, 1]);
    }

    #[test]
    fn escapes_and_broken_utf8_do_not_reach_the_log() {
        assert_eq!(lines(b"\x1b[2Jhi\xff\n"), ["\u{fffd}[2Jhi\u{fffd}"]);
    }

    #[test]
    fn what_comes_from_the_socket_is_read_in_order_and_what_is_printed_goes_there() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let line = EventFd::new(0).unwrap();
        let console = Console::attach("guest".into(), line.try_clone().unwrap(), Some(theirs)).unwrap();
        let sent: Vec<u8> = (0..200).collect();
        ours.write_all(&sent).unwrap();
        console.write(1, &[1]);
        let (mut read, mut status, mut byte) = (Vec::new(), [0], [0]);
        while read.len() < sent.len() {
            // Rung for what came since the last look.
            line.read().unwrap();
            console.read(5, &mut status);
            while status[0] & 1 == 1 {
                console.read(0, &mut byte);
                read.push(byte[0]);
                console.read(5, &mut status);
            }
        }
        assert_eq!(read, sent);
        console.write(0, b"x");
        ours.read_exact(&mut byte).unwrap();
        assert_eq!(byte, *b"x");
    }

    #[test]
    fn the_last_lines_are_kept_and_a_panic_is_found_however_long_its_trace() {
        let console = Console::new(|_| {});
        let say = |text: &str| text.bytes().for_each(|byte| console.write(0, &[byte]));
        (0..100).for_each(|number| say(&format!("line {number}\n")));
        assert_eq!((console.last_lines().len(), console.panic()), (LAST_LINES, None));
        say("[    1.5] Kernel panic - not syncing: Attempted to kill init!\n");
        (0..100).for_each(|number| say(&format!("trace {number}\n")));
        say("[    1.6] CPU: 0");
        assert_eq!(console.panic().as_deref(), Some("Attempted to kill init!"));
        assert_eq!(console.last_lines().last().map(String::as_str), Some("[    1.6] CPU: 0"));
    }

    #[test]
    fn a_flood_is_dropped_and_counted() {
        let start = Instant::now();
        let mut limit = Limit::new(start);
        let passed = (0..1000).filter(|_| limit.admit(start).is_some()).count();
        assert_eq!(passed as u32, BURST_LINES);
        assert_eq!(limit.admit(start + LINE_INTERVAL), Some(1000 - u64::from(BURST_LINES)));
        assert_eq!(limit.admit(start + LINE_INTERVAL), None);
    }

    #[test]
    fn the_transmitter_is_always_ready() {
        let mut status = [0];
        Console::new(|_| {}).read(5, &mut status);
        assert_eq!(status[0] & 0x60, 0x60);
    }

    #[test]
    fn wide_and_far_accesses_are_harmless() {
        let console = Console::new(|_| panic!("no line"));
        for (offset, bytes) in [(0, 4), (8, 1), (7, 8), (u64::MAX, 1)] {
            let mut data = vec![0; bytes];
            console.write(offset, &data);
            console.read(offset, &mut data);
            assert!(data.iter().all(|&byte| byte == 0xff));
        }
    }
}
