//! The asking side of `ballast host`: what the host of a run may use and does, and giving it more or less.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::bytes::ByteCount;
use crate::client::{ClientError, patch, shown};

/// The host of the run at `address`: as JSON, or in words.
pub fn show_host(address: SocketAddr, as_json: bool) -> Result<String, ClientError> {
    shown(address, "/v1/host", as_json, in_words)
}

/// Gives the run at `address` another budget.
pub fn set_budget(address: SocketAddr, budget: ByteCount) -> Result<(), ClientError> {
    patch(address, "/v1/host", &json!({ "budget_bytes": budget.0 }))
}

fn in_words(answer: &Value) -> Option<String> {
    let size = |field: &str| Some(ByteCount::rounded(answer.get(field)?.as_u64()?));
    Some(format!(
        "{}: {} used of {} (at most {} so far), {} of it shared frames; {} can be used now\n",
        answer.get("state")?.as_str()?,
        size("used_bytes")?,
        size("budget_bytes")?,
        size("peak_used_bytes")?,
        size("frames_bytes")?,
        size("usable_bytes")?
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_say_what_is_used_of_what() {
        let mib = |mib: u64| mib << 20;
        let answer = json!({
            "state": "soft", "used_bytes": mib(500), "budget_bytes": mib(512), "peak_used_bytes": mib(700),
            "frames_bytes": mib(64), "usable_bytes": mib(496),
        });
        let text = in_words(&answer).unwrap();
        assert_eq!(
            text,
            "soft: 500 MiB used of 512 MiB (at most 700 MiB so far), 64 MiB of it shared frames; 496 MiB can be used now\n"
        );
        assert_eq!(in_words(&json!({ "state": "soft" })), None);
    }
}
