//! Between the front end and `vhost-user-backend`: what that crate cannot do yet.
//!
//! ```text
//!   front end <---- messages, descriptors ----> relay <---- the same, mended ----> vhost-user-backend
//!                 <------- CONFIG_CHANGE ------- channel
//! ```
//!
//! `vhost` 0.18 takes a SET_MEM_TABLE for an error if it is longer than its regions, as Linux's `virtio_uml`
//! sends it, and has no way to tell the front end of a changed configuration space. So messages pass through
//! here, one at a time and in order; those of the table are cut to their regions, and of the back channel's
//! descriptor a copy is kept. Everything else passes as it is, and is judged behind.

use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::{fs, thread};

use crate::sys::{self, DESCRIPTORS_MAX};

/// Request, flags and length of the payload, 32 bits each.
const HEADER_BYTES: usize = 12;
/// Longest payload; the protocol's own bound on messages.
const PAYLOAD_BYTES_MAX: usize = 0x1000;
/// `VHOST_USER_SET_MEM_TABLE`: a number of regions, padding, the regions.
const SET_MEM_TABLE: u32 = 5;
const REGION_BYTES: usize = 32;
/// `VHOST_USER_SET_BACKEND_REQ_FD`.
const SET_BACKEND_REQ_FD: u32 = 21;
/// `VHOST_USER_BACKEND_CONFIG_CHANGE_MSG`, version 1 of the protocol, no reply wanted, no payload.
const CONFIG_CHANGE: [u32; 3] = [2, 1, 0];

/// The way back to the front end, while there is one.
#[derive(Debug, Default)]
pub(crate) struct Channel(Mutex<Option<UnixStream>>);

impl Channel {
    /// Tells the front end that the configuration space has changed. A front end without a back channel looks
    /// for itself.
    pub(crate) fn configuration_changed(&self) -> io::Result<()> {
        match &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(stream) => stream.write_all(CONFIG_CHANGE.map(u32::to_ne_bytes).as_flattened()),
            None => Ok(()),
        }
    }

    fn set(&self, stream: Option<UnixStream>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = stream;
    }
}

/// A socket beside `path` that only we connect to, and our end of it.
pub(crate) fn private_pair(path: &Path) -> io::Result<(UnixListener, UnixStream)> {
    let mut private = path.as_os_str().to_owned();
    private.push(".relay");
    match fs::remove_file(&private) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&private)?;
    fs::set_permissions(&private, fs::Permissions::from_mode(0o600))?;
    let stream = UnixStream::connect(&private)?;
    fs::remove_file(&private)?;
    Ok((listener, stream))
}

/// Passes messages on until one of the two is gone, and then the other one goes too.
pub(crate) fn start(front: UnixStream, back: UnixStream, channel: Arc<Channel>) -> io::Result<()> {
    let (from_back, to_front) = (back.try_clone()?, front.try_clone()?);
    let ways = [(front, back, Some(channel)), (from_back, to_front, None)];
    for (from, to, channel) in ways {
        thread::Builder::new().name("relay".into()).spawn(move || {
            let mut message = Message::default();
            let result = loop {
                match message.receive(&from) {
                    Ok(true) => {}
                    Ok(false) => break Ok(()),
                    Err(error) => break Err(error),
                }
                if let Some(channel) = &channel {
                    message.mend(channel);
                }
                if let Err(error) = message.send(&to) {
                    break Err(error);
                }
            };
            if let Err(error) = result {
                tracing::debug!(%error, "vhost-user messages end");
            }
            if let Some(channel) = channel {
                channel.set(None);
            }
            // Both may be gone already.
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
        })?;
    }
    Ok(())
}

/// A message on its way.
#[derive(Debug, Default)]
struct Message {
    header: [u8; HEADER_BYTES],
    payload: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Message {
    /// Waits for the next one; false when there are no more.
    fn receive(&mut self, from: &UnixStream) -> io::Result<bool> {
        self.descriptors.clear();
        if !self.fill_header(from)? {
            return Ok(false);
        }
        let bytes = self.number(2) as usize;
        if bytes > PAYLOAD_BYTES_MAX {
            return Err(io::Error::other(format!("message of {bytes} bytes")));
        }
        self.payload.resize(bytes, 0);
        let mut filled = 0;
        while filled < bytes {
            match sys::receive(from, &mut self.payload[filled..], &mut self.descriptors)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                more => filled += more,
            }
        }
        Ok(true)
    }

    fn fill_header(&mut self, from: &UnixStream) -> io::Result<bool> {
        let mut filled = 0;
        while filled < HEADER_BYTES {
            match sys::receive(from, &mut self.header[filled..], &mut self.descriptors)? {
                0 if filled == 0 => return Ok(false),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                more => filled += more,
            }
        }
        Ok(true)
    }

    /// The `nth` number of the header.
    fn number(&self, nth: usize) -> u32 {
        self.header.as_chunks::<4>().0.get(nth).map_or(0, |&bytes| u32::from_ne_bytes(bytes))
    }

    fn mend(&mut self, channel: &Channel) {
        match self.number(0) {
            SET_MEM_TABLE => {
                let regions = self.payload.first_chunk().map_or(0, |&bytes| u32::from_ne_bytes(bytes)) as usize;
                let used = regions.saturating_mul(REGION_BYTES).saturating_add(8);
                if used < self.payload.len() && regions > 0 {
                    self.payload.truncate(used);
                    self.header[8..].copy_from_slice(&(used as u32).to_ne_bytes());
                }
            }
            SET_BACKEND_REQ_FD => {
                let copy = self.descriptors.first().map(|one| one.as_fd().try_clone_to_owned().map(UnixStream::from));
                // A front end that does not read its news loses them; it does not hold us up.
                let stream = copy.and_then(Result::ok).filter(|stream| stream.set_nonblocking(true).is_ok());
                channel.set(stream);
            }
            _ => {}
        }
    }

    fn send(&self, to: &UnixStream) -> io::Result<()> {
        if self.descriptors.len() > DESCRIPTORS_MAX {
            return Err(io::Error::other(format!("message with {} descriptors", self.descriptors.len())));
        }
        let bytes = [&self.header[..], &self.payload].concat();
        let sent = sys::send(to, &bytes, &self.descriptors)?;
        (&mut &*to).write_all(&bytes[sent..])
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;

    use super::*;

    fn message(request: u32, payload: &[u8]) -> Vec<u8> {
        let header = [request, 1, payload.len() as u32].map(u32::to_ne_bytes);
        [header.as_flattened(), payload].concat()
    }

    /// The front end's end, the back end's end, and the channel of a relay between them.
    fn relayed() -> (UnixStream, UnixStream, Arc<Channel>) {
        let (front, relay_front) = UnixStream::pair().unwrap();
        let (back, relay_back) = UnixStream::pair().unwrap();
        let channel = Arc::<Channel>::default();
        start(relay_front, relay_back, channel.clone()).unwrap();
        (front, back, channel)
    }

    fn read(stream: &mut UnixStream, bytes: usize) -> Vec<u8> {
        let mut read = vec![0; bytes];
        stream.read_exact(&mut read).unwrap();
        read
    }

    #[test]
    fn a_memory_table_loses_what_lies_behind_its_regions() {
        let (mut front, mut back, _channel) = relayed();
        let table = |regions: u32, bytes: usize| {
            let mut payload = vec![7; bytes];
            payload[..8].copy_from_slice([regions, 0].map(u32::to_ne_bytes).as_flattened());
            payload
        };
        front.write_all(&message(SET_MEM_TABLE, &table(1, 72))).unwrap();
        assert_eq!(read(&mut back, 52), message(SET_MEM_TABLE, &table(1, 40)));
        for (regions, bytes) in [(2, 72), (3, 72), (0, 72), (u32::MAX, 72)] {
            front.write_all(&message(SET_MEM_TABLE, &table(regions, bytes))).unwrap();
            assert_eq!(read(&mut back, 84), message(SET_MEM_TABLE, &table(regions, bytes)), "{regions}");
        }
        front.write_all(&message(SET_MEM_TABLE, &[])).unwrap();
        assert_eq!(read(&mut back, 12), message(SET_MEM_TABLE, &[]));
    }

    #[test]
    fn messages_and_their_descriptors_pass_both_ways_whole() {
        let (front, back, _channel) = relayed();
        for (from, to) in [(&front, &back), (&back, &front)] {
            let file = tempfile::tempfile().unwrap();
            file.set_len(1234).unwrap();
            let bytes = message(1, b"payload");
            let sent = sys::send(from, &bytes[..5], &[OwnedFd::from(file)]).unwrap();
            (&mut &*from).write_all(&bytes[sent..]).unwrap();
            let mut passed = Message::default();
            assert!(passed.receive(to).unwrap());
            assert_eq!([&passed.header[..], &passed.payload].concat(), bytes);
            let file = File::from(passed.descriptors.pop().unwrap());
            assert_eq!(file.metadata().unwrap().len(), 1234);
        }
    }

    #[test]
    fn the_back_channel_carries_news_until_the_front_end_goes() {
        let (front, mut back, channel) = relayed();
        channel.configuration_changed().unwrap();
        let (mut news, ours) = UnixStream::pair().unwrap();
        let bytes = message(SET_BACKEND_REQ_FD, &[]);
        sys::send(&front, &bytes, &[OwnedFd::from(ours)]).unwrap();
        assert_eq!(read(&mut back, 12), bytes);
        channel.configuration_changed().unwrap();
        assert_eq!(read(&mut news, 12), [2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        drop(front);
        assert_eq!(back.read(&mut [0]).unwrap(), 0, "the back end learns of it");
    }

    #[test]
    fn a_message_that_is_too_long_ends_the_connection() {
        let (mut front, mut back, _channel) = relayed();
        front.write_all([1, 1, 0x1001].map(u32::to_ne_bytes).as_flattened()).unwrap();
        assert_eq!(back.read(&mut [0]).unwrap(), 0);
    }
}
