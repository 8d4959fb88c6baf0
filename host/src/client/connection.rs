//! The asking side of the HTTP interface: one request to a running host, one JSON answer, and errors in the
//! host's own words.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// How long the host may take: it answers from memory.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long it may take for what it answers when it is done: a connection has no longer.
const ORDER_TIMEOUT: Duration = Duration::from_secs(12);
/// Longest answer, bytes: 256 guests with a few KiB each are far below it.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// nobody answers there
    #[error("asking {address}: {source}; is `ballast run` running with --metrics {address}?")]
    Connection {
        /// Whom we asked.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// the host refuses
    #[error("{0}")]
    Refused(String),
    /// something else answers there
    #[error("{address} does not answer as ballast does: {what}")]
    Stranger {
        /// Whom we asked.
        address: SocketAddr,
        /// What is wrong with the answer.
        what: String,
    },
}

/// What the host at `address` says to `GET path`.
pub(crate) fn get(address: SocketAddr, path: &str) -> Result<Value, ClientError> {
    exchange(address, "GET", path, None)
}

/// What the host at `address` says to `GET path`: as JSON, or in the words that `words` finds for it.
pub(crate) fn shown(
    address: SocketAddr,
    path: &str,
    as_json: bool,
    words: impl FnOnce(&Value) -> Option<String>,
) -> Result<String, ClientError> {
    let answer = get(address, path)?;
    if as_json {
        return Ok(format!("{answer:#}\n"));
    }
    let what = || "the answer lacks what it should have".into();
    words(&answer).ok_or_else(|| ClientError::Stranger { address, what: what() })
}

/// Changes what is at `path` as `body` says.
pub(crate) fn patch(address: SocketAddr, path: &str, body: &Value) -> Result<(), ClientError> {
    exchange(address, "PATCH", path, Some(body)).map(drop)
}

/// Orders what `path` does, and what came of it: some orders are answered when they are done.
pub(crate) fn post(address: SocketAddr, path: &str, body: &Value) -> Result<Value, ClientError> {
    exchange(address, "POST", path, Some(body))
}

/// Ends what is at `path`.
pub(crate) fn delete(address: SocketAddr, path: &str) -> Result<(), ClientError> {
    exchange(address, "DELETE", path, None).map(drop)
}

/// The path of a guest, unless that cannot be a guest's name.
pub(crate) fn guest_path(guest: &str) -> Result<String, ClientError> {
    let sound = !guest.is_empty() && guest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    let refused = || ClientError::Refused(format!("{guest:?} is no guest's name: guest0, guest1, ..."));
    sound.then(|| format!("/v1/guests/{guest}")).ok_or_else(refused)
}

fn exchange(address: SocketAddr, method: &str, path: &str, body: Option<&Value>) -> Result<Value, ClientError> {
    let asked = ask(address, method, path, body);
    let (status, text) = asked.map_err(|source| ClientError::Connection { address, source })?;
    let stranger = |what: String| ClientError::Stranger { address, what };
    if status == 204 {
        return Ok(Value::Null);
    }
    let answer: Value = serde_json::from_str(&text).map_err(|error| stranger(error.to_string()))?;
    match answer.pointer("/error/message").and_then(Value::as_str) {
        _ if status == 200 => Ok(answer),
        Some(message) => Err(ClientError::Refused(message.into())),
        None => Err(stranger(format!("status {status}"))),
    }
}

fn ask(address: SocketAddr, method: &str, path: &str, body: Option<&Value>) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(if method == "POST" { ORDER_TIMEOUT } else { TIMEOUT }))?;
    let body = body.map(Value::to_string).unwrap_or_default();
    // In one piece: whoever refuses early would reset the connection under the rest, and the refusal would be
    // lost.
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes())?;
    let mut text = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut text)?;
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "no HTTP answer");
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(malformed)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(malformed)?;
    Ok((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::net::TcpListener;
    use std::sync::mpsc;

    /// Somebody at an address who answers once, and what that one was asked.
    fn answered(answer: &'static str) -> (SocketAddr, mpsc::Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, asked) = mpsc::channel();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let length = stream.read(&mut request).unwrap_or(0);
            let _ = stream.write_all(answer.as_bytes());
            let _ = sender.send(String::from_utf8_lossy(&request[..length]).into_owned());
        });
        (address, asked)
    }

    #[test]
    fn refusals_strangers_and_silence_are_told_apart() {
        let (refused, _) =
            answered("HTTP/1.1 404 Not Found\r\n\r\n{\"error\":{\"code\":\"x\",\"message\":\"there is no guest\"}}");
        assert_eq!(get(refused, "/v1/guests/web").unwrap_err().to_string(), "there is no guest");
        let (stranger, _) = answered("HTTP/1.1 200 OK\r\n\r\nhello");
        assert!(matches!(get(stranger, "/"), Err(ClientError::Stranger { .. })));
        let nobody = "127.0.0.1:1".parse().unwrap();
        assert!(matches!(get(nobody, "/"), Err(ClientError::Connection { .. })));
    }

    #[test]
    fn a_change_is_sent_with_its_body_and_done_without_an_answer() {
        let (address, asked) = answered("HTTP/1.1 204 No Content\r\n\r\n");
        patch(address, "/v1/guests/guest0", &json!({ "state": "paused" })).unwrap();
        let request = asked.recv().unwrap();
        assert!(request.starts_with("PATCH /v1/guests/guest0 HTTP/1.0\r\n"), "{request}");
        assert!(request.contains("Content-Type: application/json\r\n"), "{request}");
        assert!(request.ends_with("\r\n\r\n{\"state\":\"paused\"}"), "{request}");
    }

    #[test]
    fn what_cannot_be_a_guests_name_is_asked_of_nobody() {
        assert_eq!(guest_path("guest0").unwrap(), "/v1/guests/guest0");
        for name in ["", "a/b", "a b", "../host", "x\r\ny"] {
            assert!(matches!(guest_path(name), Err(ClientError::Refused(_))), "{name:?}");
        }
    }
}
