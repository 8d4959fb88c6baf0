//! The asking side of `ballast policy explain`: the host's answer, for people.
//!
//! ```text
//!   host is hard: 3 MiB free of 256 MiB that can be used (budget 256 MiB)
//!
//!   guest1: stalls, and nobody has memory to give
//!     would change it: 9 MiB more budget: it gets 4 MiB more
//!
//!   FROM      TO        TIMES        ALLOCATION  HOST  DECISION                                (UTC)
//!   22:41:03  22:41:09     61       92 - 96 MiB  hard  stalls, and nobody has memory to give
//!   ... and the last decision's inputs, rule and numbers
//! ```
//!
//! At most a screen, unless all is asked for.

use std::fmt::Write as _;
use std::net::SocketAddr;

use serde_json::Value;

use crate::client::connection::{ClientError, guest_path, shown};

/// Lines of a terminal, less one for the prompt.
const SCREEN_LINES: usize = 23;
/// Of these, so many for decisions at least, however much there is to say of the last one.
const DECISIONS_MIN: usize = 3;

/// What the host at `address` decided about `guest`, or last about each guest: as JSON, or in words; `all` is
/// more than a screen of them.
pub fn explain_policy(
    address: SocketAddr,
    guest: Option<&str>,
    all: bool,
    as_json: bool,
) -> Result<String, ClientError> {
    let path = guest.map_or(Ok("/v1/policy".to_owned()), |guest| Ok(guest_path(guest)? + "/policy"))?;
    shown(address, &path, as_json, |answer| if guest.is_some() { of_guest(answer, all) } else { of_all(answer, all) })
}

fn host_line(answer: &Value) -> Option<String> {
    let host = answer.get("host")?;
    let mib = |field: &str| Some(host.get(field)?.as_u64()? >> 20);
    Some(format!(
        "host is {}: {} MiB free of {} MiB that can be used (budget {} MiB)\n",
        host.get("state")?.as_str()?,
        mib("free_bytes")?,
        mib("usable_bytes")?,
        mib("budget_bytes")?
    ))
}

/// The last decision about each guest.
fn of_all(answer: &Value, all: bool) -> Option<String> {
    let mut text = host_line(answer)? + "\n";
    let list = answer.get("guests")?.as_array()?;
    if all {
        for one in list {
            // Writing to a `String` cannot fail.
            let _ = writeln!(text, "{}\n{}", one.get("guest")?.as_str()?, indented(one.get("text")?.as_str()?));
        }
        return Some(text);
    }
    let _ = writeln!(text, "{:<12} {HEADER}", "GUEST");
    // Beside host, header, blank and last line.
    let rows = SCREEN_LINES - 4;
    for one in list.iter().take(rows) {
        let _ = writeln!(text, "{:<12} {}", one.get("guest")?.as_str()?, row(one)?);
    }
    let left = list.len().saturating_sub(rows);
    let more = if left > 0 { format!("{left} more with --all; ") } else { String::new() };
    let _ = writeln!(text, "{more}`ballast policy explain GUEST` says what would change it");
    Some(text)
}

/// One guest's decisions.
fn of_guest(answer: &Value, all: bool) -> Option<String> {
    let mut text = host_line(answer)?;
    let list = answer.get("decisions")?.as_array()?;
    let name = answer.get("guest")?.as_str()?;
    let Some(last) = list.first() else { return Some(text + &format!("\nnothing was decided about {name} yet\n")) };
    let _ = writeln!(text, "\n{name}: {}", last.get("decision")?.as_str()?);
    for remedy in answer.get("would_change_it")?.as_array()? {
        let _ = writeln!(text, "  would change it: {}", remedy.get("text")?.as_str()?);
    }
    let details = indented(last.get("text")?.as_str()?);
    let _ = writeln!(text, "\n{HEADER}");
    let taken = text.lines().count() + details.lines().count() + 2;
    let rows = if all { list.len() } else { SCREEN_LINES.saturating_sub(taken).max(DECISIONS_MIN) };
    for one in list.iter().take(rows) {
        let _ = writeln!(text, "{}", row(one)?);
    }
    let left = list.len().saturating_sub(rows);
    if left > 0 {
        let _ = writeln!(text, "{left} more with --all");
    }
    let room = if all { usize::MAX } else { SCREEN_LINES.saturating_sub(text.lines().count() + 1) };
    let _ = writeln!(text, "\n{}", details.lines().take(room).collect::<Vec<_>>().join("\n"));
    Some(text)
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

const HEADER: &str = "FROM      TO        TIMES         ALLOCATION  HOST  DECISION (times are UTC)";

fn row(one: &Value) -> Option<String> {
    let number = |pointer: &str| one.pointer(pointer)?.as_u64();
    let [least, most] = ["least", "most"]
        .map(|end| number(&format!("/allocation_range_bytes/{end}")).map(|bytes| bytes as f64 / f64::from(1 << 20)));
    let (least, most) = (least?, most?);
    let range = if most - least < 0.1 { format!("{most:.1} MiB") } else { format!("{least:.1} - {most:.1} MiB") };
    Some(format!(
        "{}  {}  {:>5} {range:>18}  {:<4}  {}",
        time_of_day(number("/from_unix_ms")?),
        time_of_day(number("/to_unix_ms")?),
        number("/count")?,
        one.pointer("/inputs/host_state")?.as_str()?,
        one.get("decision")?.as_str()?
    ))
}

/// `22:41:03`, UTC.
fn time_of_day(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000;
    format!("{:02}:{:02}:{:02}", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answer(decisions: usize) -> Value {
        let one = |at: usize| {
            json!({
                "guest": "guest1", "from_unix_ms": 3_661_000, "to_unix_ms": 86_399_000, "count": 61 + at, "decision": "settled",
                "allocation_range_bytes": { "least": 92 << 20, "most": 96 << 20 }, "inputs": { "host_state": "hard" },
                "text": "decision keeps\nrule moves\npromises p\nuse u\nidle tax i\nentitlement e\nwaits w\nballoon b\nlevers l\nplan p\nhost h",
            })
        };
        let host = json!({ "state": "hard", "free_bytes": 3 << 20, "usable_bytes": 9 << 20, "budget_bytes": 9 << 20 });
        let list: Vec<_> = (0..decisions).map(one).collect();
        let would = [json!({ "text": "24 MiB more budget" }), json!({ "text": "8 MiB idle in guest2" })];
        json!({ "host": host, "guest": "guest1", "decisions": list, "guests": list, "would_change_it": would })
    }

    #[test]
    fn words_name_the_host_what_would_change_it_and_each_decision() {
        let text = of_guest(&answer(2), false).unwrap();
        for words in [
            "host is hard: 3 MiB free of 9 MiB",
            "guest1: settled\n  would change it: 24 MiB more budget\n  would change it: 8 MiB idle in guest2\n",
            "01:01:01  23:59:59     61    92.0 - 96.0 MiB  hard  settled\n",
            "\n  decision keeps\n",
        ] {
            assert!(text.contains(words), "{words:?} is not in\n{text}");
        }
        assert_eq!(of_guest(&json!({ "host": {} }), false), None);
    }

    #[test]
    fn more_than_a_screen_is_said_only_if_all_is_asked_for() {
        for decisions in [1, 3, 20, 300] {
            for text in [of_guest(&answer(decisions), false).unwrap(), of_all(&answer(decisions), false).unwrap()] {
                assert!(text.lines().count() <= SCREEN_LINES, "{}\n{text}", text.lines().count());
            }
        }
        assert!(of_guest(&answer(30), false).unwrap().contains("27 more with --all"));
        let all = of_guest(&answer(30), true).unwrap();
        assert_eq!(all.matches("  hard  settled").count(), 30);
        assert!(all.contains("  host h") && of_all(&answer(30), true).unwrap().matches("  host h").count() == 30);
    }
}
