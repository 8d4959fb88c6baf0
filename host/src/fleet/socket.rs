//! The host's end of a control socket: the frames of [`control::codec`] over tokio.

use control::{Error, FRAME_BYTES_MAX, ToVmm, encode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

/// Reads the next message into `body`, as [`decode`] takes it; false when the VMM closed the socket between
/// two frames.
pub async fn receive(socket: &mut OwnedReadHalf, body: &mut Vec<u8>) -> Result<bool, Error> {
    let length = match socket.read_u32_le().await {
        Ok(length) => length as usize,
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    if length > FRAME_BYTES_MAX {
        return Err(Error::TooLong(length));
    }
    body.resize(length, 0);
    socket.read_exact(body).await?;
    Ok(true)
}

/// Writes what is put into the outbox until the VMM is gone. Its reader is who reports that.
pub async fn send_all(mut socket: OwnedWriteHalf, mut outbox: mpsc::Receiver<ToVmm>) {
    while let Some(message) = outbox.recv().await {
        let sent = match encode(&message) {
            Ok(frame) => socket.write_all(&frame).await.map_err(Error::from),
            Err(error) => Err(error),
        };
        if let Err(error) = sent {
            tracing::debug!(%error, "control socket");
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use control::{ToHost, decode};
    use tokio::net::UnixStream;

    async fn received(bytes: &[u8]) -> Result<Option<ToHost>, Error> {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.into_split().1.write_all(bytes).await.unwrap();
        let mut body = Vec::new();
        let is_message = receive(&mut ours.into_split().0, &mut body).await?;
        is_message.then(|| decode(&body)).transpose()
    }

    #[tokio::test]
    async fn a_message_survives_the_socket() {
        assert_eq!(received(&encode(&ToHost::Ready).unwrap()).await.unwrap(), Some(ToHost::Ready));
    }

    #[tokio::test]
    async fn a_closed_socket_is_no_error() {
        assert_eq!(received(&[]).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_death_inside_a_frame_is_an_error() {
        assert!(matches!(received(&[9, 0, 0, 0, 1]).await, Err(Error::Io(_))));
    }

    #[tokio::test]
    async fn an_announced_flood_is_refused_before_it_is_read() {
        assert!(matches!(received(&u32::MAX.to_le_bytes()).await, Err(Error::TooLong(_))));
    }
}
