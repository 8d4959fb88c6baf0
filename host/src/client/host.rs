//! The asking side of `ballast host`: what the host of a run may use and does, and giving it more or less.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::bytes::ByteCount;
use crate::client::connection::{ClientError, get, patch, shown};

/// How often a budget that is waited for is looked at: two ticks.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// The host of the run at `address`: as JSON, or in words.
pub fn show_host(address: SocketAddr, as_json: bool) -> Result<String, ClientError> {
    shown(address, "/v1/host", as_json, in_words)
}

/// Gives the run at `address` another budget, and waits until it is reached, for at most so long. What was
/// reached, in words; nothing without a wait.
pub fn set_budget(address: SocketAddr, budget: ByteCount, wait: Option<Duration>) -> Result<String, ClientError> {
    patch(address, "/v1/host", &json!({ "budget_bytes": budget.0 }))?;
    let Some(wait) = wait else { return Ok(String::new()) };
    let deadline = Instant::now() + wait;
    loop {
        let answer = get(address, "/v1/host")?;
        let bytes = |field: &str| answer.get(field).and_then(Value::as_u64);
        let stranger = || ClientError::Stranger { address, what: "the answer lacks what it should have".into() };
        let (set, decided) = bytes("budget_bytes").zip(bytes("requested_bytes")).ok_or_else(stranger)?;
        let reached = ByteCount::rounded(bytes("reached_bytes").ok_or_else(stranger)?);
        if set != budget.0 {
            return Err(ClientError::Refused(format!("somebody else has set a budget of {} since", ByteCount(set))));
        }
        let is_decided = decided == budget.0;
        if is_decided && bytes("reached_bytes") == Some(budget.0) {
            return Ok(format!("{reached} reached\n"));
        }
        if Instant::now() >= deadline {
            let why = answer.get("why_short").and_then(Value::as_str).unwrap_or("the host has not decided yet");
            return Err(ClientError::Refused(format!(
                "{reached} reached after {} s, of {} that were asked for: {why}; the run goes on, and follows as its guests let it",
                wait.as_secs(),
                ByteCount(budget.0)
            )));
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
}

fn in_words(answer: &Value) -> Option<String> {
    let size = |field: &str| Some(ByteCount::rounded(answer.get(field)?.as_u64()?));
    let short = match answer.get("why_short")?.as_str() {
        Some(why) => format!("{} asked for, {} reached: {why}\n", size("requested_bytes")?, size("reached_bytes")?),
        None => String::new(),
    };
    Some(format!(
        "{}: {} used of {} (at most {} so far), {} of it shared frames; {} can be used now\n{short}",
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
        let mut answer = json!({
            "state": "soft", "used_bytes": mib(500), "budget_bytes": mib(512), "peak_used_bytes": mib(700),
            "frames_bytes": mib(64), "usable_bytes": mib(496), "requested_bytes": mib(512),
            "reached_bytes": mib(512), "why_short": null,
        });
        let text = in_words(&answer).unwrap();
        assert_eq!(
            text,
            "soft: 500 MiB used of 512 MiB (at most 700 MiB so far), 64 MiB of it shared frames; 496 MiB can be used now\n"
        );
        answer["reached_bytes"] = json!(mib(600));
        answer["why_short"] = json!("no swap file");
        assert!(in_words(&answer).unwrap().ends_with("\n512 MiB asked for, 600 MiB reached: no swap file\n"));
        assert_eq!(in_words(&json!({ "state": "soft" })), None);
    }
}
