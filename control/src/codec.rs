//! Frames on the control socket: a 32-bit little-endian length and a postcard message.

use std::io::{self, Read, Write};

use serde::{Serialize, de::DeserializeOwned};

use crate::FRAME_BYTES_MAX;

/// Why a message could not be sent or understood.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// reading or writing the control socket
    #[error("control socket: {0}")]
    Io(#[from] io::Error),
    /// the peer announced a frame of an impossible length
    #[error("control frame of {0} bytes; at most {FRAME_BYTES_MAX} are allowed")]
    TooLong(usize),
    /// the frame's bytes are no message
    #[error("control frame is malformed: {0}")]
    Malformed(#[from] postcard::Error),
}

/// Room for messages without pages, which so grow no buffer.
const FRAME_BYTES_USUAL: usize = 16 << 10;

/// `message` as a whole frame, length first.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, Error> {
    let mut frame = Vec::with_capacity(FRAME_BYTES_USUAL);
    frame.extend([0; 4]);
    let mut frame = postcard::to_extend(message, frame)?;
    let length = frame.len() - 4;
    if length > FRAME_BYTES_MAX {
        return Err(Error::TooLong(length));
    }
    frame[..4].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(frame)
}

/// The message in `body`, a frame without its length.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    Ok(postcard::from_bytes(body)?)
}

/// Writes one message to a blocking socket.
pub fn write_frame<T: Serialize>(to: &mut impl Write, message: &T) -> Result<(), Error> {
    Ok(to.write_all(&encode(message)?)?)
}

/// Reads one message from a blocking socket; `None` when the peer closed it between two frames.
pub fn read_frame<T: DeserializeOwned>(from: &mut impl Read, buffer: &mut Vec<u8>) -> Result<Option<T>, Error> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(Error::TooLong(length));
    }
    buffer.resize(length, 0);
    from.read_exact(buffer)?;
    decode(buffer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ToHost, ToVmm};
    use proptest::prelude::*;

    #[test]
    fn a_message_survives_the_socket() {
        let message = ToVmm::Allocate { allocation_bytes: 96 << 20, balloon_bytes: 160 << 20, kernel_page_price: 128 };
        let mut bytes = Vec::new();
        write_frame(&mut bytes, &message).unwrap();
        let back: ToVmm = read_frame(&mut bytes.as_slice(), &mut Vec::new()).unwrap().unwrap();
        assert_eq!(back, message);
    }

    #[test]
    fn numbers_with_types_are_encoded_as_bare_numbers() {
        let typed = encode(&(wire::Gfn(3), wire::Frame(70_000))).unwrap();
        assert_eq!(typed, encode(&(3u32, 70_000u32)).unwrap());
    }

    #[test]
    fn a_closed_socket_is_no_error() {
        assert!(read_frame::<ToVmm>(&mut [].as_slice(), &mut Vec::new()).unwrap().is_none());
    }

    #[test]
    fn an_announced_flood_is_refused_before_it_is_read() {
        let bytes = u32::MAX.to_le_bytes();
        assert!(matches!(read_frame::<ToVmm>(&mut bytes.as_slice(), &mut Vec::new()), Err(Error::TooLong(_))));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = decode::<ToVmm>(&bytes);
            let _ = decode::<ToHost>(&bytes);
            let _ = read_frame::<ToHost>(&mut bytes.as_slice(), &mut Vec::new());
        }
    }
}
