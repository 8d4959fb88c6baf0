//! The asking side of `ballast policy explain`: one request to a running host's HTTP address, and its answer for people.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// How long the host may take: it answers from memory.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer, bytes: 256 guests with a few KiB each are far below it.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// Why there is no explanation.
#[derive(Debug, thiserror::Error)]
pub enum PolicyClientError {
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

/// What the host at `address` decided about `guest`, or last about each guest: as JSON, or in words.
pub fn explain_policy(address: SocketAddr, guest: Option<&str>, as_json: bool) -> Result<String, PolicyClientError> {
    let path = match guest {
        Some(guest) if guest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) => {
            format!("/v1/guests/{guest}/policy")
        }
        Some(guest) => {
            return Err(PolicyClientError::Refused(format!("{guest:?} is no guest's name: guest0, guest1, ...")));
        }
        None => "/v1/policy".to_owned(),
    };
    let (status, body) = ask(address, &path).map_err(|source| PolicyClientError::Connection { address, source })?;
    let stranger = |what: String| PolicyClientError::Stranger { address, what };
    let answer: Value = serde_json::from_str(&body).map_err(|error| stranger(error.to_string()))?;
    if status != 200 {
        let message = answer.pointer("/error/message").and_then(Value::as_str);
        return Err(
            message.map_or(stranger(format!("status {status}")), |text| PolicyClientError::Refused(text.into()))
        );
    }
    if as_json {
        return Ok(format!("{answer:#}\n"));
    }
    in_words(&answer).ok_or_else(|| stranger("the answer lacks what it should have".into()))
}

fn ask(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut text)?;
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "no HTTP answer");
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(malformed)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(malformed)?;
    Ok((status, body.to_owned()))
}

fn in_words(answer: &Value) -> Option<String> {
    let host = answer.get("host")?;
    let mib = |field: &str| Some(host.get(field)?.as_u64()? >> 20);
    let mut text = format!(
        "host is {}: {} MiB free of {} MiB that can be used (budget {} MiB)\n",
        host.get("state")?.as_str()?,
        mib("free_bytes")?,
        mib("usable_bytes")?,
        mib("budget_bytes")?
    );
    let list = answer.get("decisions").or_else(|| answer.get("guests"))?.as_array()?;
    let newest = list.iter().filter_map(|one| one.get("at_unix_ms")?.as_u64()).max().unwrap_or(0);
    for one in list {
        let before_s = newest.saturating_sub(one.get("at_unix_ms")?.as_u64()?) as f64 / 1e3;
        // Writing to a `String` cannot fail.
        let _ = write!(text, "\n{}, {before_s:.1} s before the newest\n", one.get("guest")?.as_str()?);
        for line in one.get("text")?.as_str()?.lines() {
            let _ = writeln!(text, "  {line}");
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::net::TcpListener;

    /// An answer of somebody at an address.
    fn answered(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 256];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(answer.as_bytes());
        });
        address
    }

    #[test]
    fn words_name_the_host_and_each_decision() {
        let one = json!({ "guest": "guest1", "at_unix_ms": 5_000, "text": "decision keeps" });
        let host = json!({ "state": "hard", "free_bytes": 3 << 20, "usable_bytes": 9 << 20, "budget_bytes": 9 << 20 });
        let text = in_words(&json!({ "host": host, "decisions": [one] })).unwrap();
        assert!(
            text.starts_with("host is hard: 3 MiB free of 9 MiB") && text.contains("\n  decision keeps\n"),
            "{text}"
        );
        assert_eq!(in_words(&json!({ "host": {} })), None);
    }

    #[test]
    fn refusals_strangers_and_silence_are_told_apart() {
        let refused =
            answered("HTTP/1.1 404 Not Found\r\n\r\n{\"error\":{\"code\":\"x\",\"message\":\"there is no guest\"}}");
        assert_eq!(explain_policy(refused, Some("web"), false).unwrap_err().to_string(), "there is no guest");
        let stranger = answered("HTTP/1.1 200 OK\r\n\r\nhello");
        assert!(matches!(explain_policy(stranger, None, false), Err(PolicyClientError::Stranger { .. })));
        let nobody = "127.0.0.1:1".parse().unwrap();
        assert!(matches!(explain_policy(nobody, None, false), Err(PolicyClientError::Connection { .. })));
        assert!(matches!(explain_policy(nobody, Some("a/b"), false), Err(PolicyClientError::Refused(_))));
    }
}
