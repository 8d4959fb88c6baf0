//! The asking side of `ballast policy explain`: the host's answer, for people.

use std::fmt::Write as _;
use std::net::SocketAddr;

use serde_json::Value;

use crate::client::{ClientError, guest_path, shown};

/// What the host at `address` decided about `guest`, or last about each guest: as JSON, or in words.
pub fn explain_policy(address: SocketAddr, guest: Option<&str>, as_json: bool) -> Result<String, ClientError> {
    let path = guest.map_or(Ok("/v1/policy".to_owned()), |guest| Ok(guest_path(guest)? + "/policy"))?;
    shown(address, &path, as_json, in_words)
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
}
