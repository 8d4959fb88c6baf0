//! The asking side of `ballast guest`: what guests there are, for people, and having them stop and go on.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use control::STATUS_INTERVAL;
use serde_json::{Value, json};

use crate::bytes::ByteCount;
use crate::client::connection::{ClientError, delete, get, guest_path, patch, post, shown};
use crate::request::guest_promises::PromiseChange;

/// The guests of the run at `address`: as JSON, or as a table.
pub fn list_guests(address: SocketAddr, as_json: bool) -> Result<String, ClientError> {
    shown(address, "/v1/guests", as_json, table)
}

/// Longest time that memory is taken from a guest before it is known what came of it, and some for a host
/// that is late.
const TAKING_MAX: Duration = Duration::from_secs(40);

/// Whether a guest's vCPUs are to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestOrder {
    /// They are held.
    Pause,
    /// They go on.
    Resume,
}

/// Has guests of the run at `address` stop or go on; ends with the first that cannot.
pub fn order_guests(address: SocketAddr, guests: &[String], order: GuestOrder) -> Result<(), ClientError> {
    let state = match order {
        GuestOrder::Pause => "paused",
        GuestOrder::Resume => "running",
    };
    guests.iter().try_for_each(|guest| patch(address, &guest_path(guest)?, &json!({ "state": state })))
}

/// What a guest of the run at `address` is and has: as JSON, or in words.
pub fn show_guest(address: SocketAddr, guest: &str, as_json: bool) -> Result<String, ClientError> {
    shown(address, &guest_path(guest)?, as_json, in_words)
}

/// Promises a guest of the run at `address` something else.
pub fn promise_guest(address: SocketAddr, guest: &str, changes: &[PromiseChange]) -> Result<(), ClientError> {
    let all = changes.iter().try_fold(PromiseChange::default(), |all, &change| all.and(change));
    let PromiseChange { shares, reservation_bytes, limit_bytes } = all.map_err(ClientError::Refused)?;
    let fields =
        [("shares", shares.map(u64::from)), ("reservation_bytes", reservation_bytes), ("limit_bytes", limit_bytes)];
    let given = fields.into_iter().filter_map(|(field, value)| Some((field.to_owned(), value?.into())));
    patch(address, &guest_path(guest)?, &Value::Object(given.collect()))
}

/// Reclaims so many bytes from a guest of the run at `address`, for `hold_seconds` from when they are there:
/// what came of it, as JSON or in words, and whether it was all.
pub fn reclaim(
    address: SocketAddr,
    guest: &str,
    bytes: u64,
    hold_seconds: u64,
    as_json: bool,
) -> Result<(String, bool), ClientError> {
    let path = guest_path(guest)? + "/reclaim";
    if hold_seconds == 0 {
        return delete(address, &path).map(|()| (String::new(), true));
    }
    let mut answer = post(address, &path, &json!({ "bytes": bytes, "hold_seconds": hold_seconds }))?;
    // What takes longer than a request may is asked about again.
    let begun = Instant::now();
    while answer["state"] == "taking" && begun.elapsed() < TAKING_MAX {
        std::thread::sleep(STATUS_INTERVAL);
        answer = get(address, &guest_path(guest)?)?["reclaim"].take();
    }
    let all = answer["state"] == "held" && answer["reached"] == "all";
    let text = if as_json { format!("{answer:#}\n") } else { format!("{}\n", answer["text"].as_str().unwrap_or("")) };
    Ok((text, all))
}

fn in_words(guest: &Value) -> Option<String> {
    let word = |field: &str| guest.pointer(field)?.as_str();
    let size = |field: &str| Some(ByteCount::rounded(guest.pointer(field)?.as_u64()?));
    let switch = |field: &str| Some(if guest.pointer(field)?.as_bool()? { "on" } else { "off" });
    let states = guest.get("by_state_bytes")?.as_object()?;
    let states = states.iter().filter_map(|(state, bytes)| Some((state, bytes.as_u64().filter(|&bytes| bytes > 0)?)));
    let states: Vec<_> = states.map(|(state, bytes)| format!("{} {state}", ByteCount::rounded(bytes))).collect();
    let reclaimed = guest.pointer("/reclaim/text").and_then(Value::as_str);
    let reclaimed = reclaimed.map_or(String::new(), |text| format!("reclaim      {text}\n"));
    Some(format!(
        "{}: {}, in domain {}\n\
         promises     {} reserved, {} at most, {} shares\n\
         levers       dedup {}, balloon {}, swap {}\n\
         memory       {} of {} allocated, {} resident\n\
         balloon      {} of {} asked for\n\
         pages        {}\n{reclaimed}",
        word("/name")?,
        word("/state")?,
        word("/domain")?,
        size("/reservation_bytes")?,
        size("/limit_bytes")?,
        guest.get("shares")?.as_u64()?,
        word("/levers/dedup")?,
        switch("/levers/balloon")?,
        switch("/levers/swap")?,
        size("/allocation_bytes")?,
        size("/memory_bytes")?,
        size("/resident_bytes")?,
        size("/balloon/actual_bytes")?,
        size("/balloon/requested_bytes")?,
        states.join(", ")
    ))
}

fn table(answer: &Value) -> Option<String> {
    let mut text = format!(
        "{:<12} {:<12} {:<12} {:>8} {:>9} {:>9} {:>10} {:>10} {:>10} {:>14}  {}\n",
        "GUEST",
        "STATE",
        "DOMAIN",
        "SHARES",
        "RESERVED",
        "LIMIT",
        "MEMORY",
        "ALLOCATED",
        "RESIDENT",
        "OPERATIONS",
        "AGE"
    );
    for guest in answer.get("guests")?.as_array()? {
        let word = |field: &str| guest.get(field)?.as_str();
        let size = |field: &str| Some(ByteCount::rounded(guest.get(field)?.as_u64()?).to_string());
        // Writing to a `String` cannot fail.
        let _ = writeln!(
            text,
            "{:<12} {:<12} {:<12} {:>8} {:>9} {:>9} {:>10} {:>10} {:>10} {:>14}  {}",
            word("name")?,
            word("state")?,
            word("domain")?,
            guest.get("shares")?.as_u64()?,
            size("reservation_bytes")?,
            size("limit_bytes")?,
            size("memory_bytes")?,
            size("allocation_bytes")?,
            size("resident_bytes")?,
            guest.get("operations_total")?.as_u64()?,
            age(guest)?
        );
    }
    Some(text)
}

/// How long ago the figures of a guest were said.
fn age(guest: &Value) -> Option<String> {
    let mark = if guest.get("old")?.as_bool()? { " (old)" } else { "" };
    let Some(seconds) = guest.get("status_age_seconds")?.as_f64() else { return Some("none yet".into()) };
    Some(format!("{seconds:.1} s{mark}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_names_the_guest_and_its_state() {
        let guest = json!({
            "name": "guest1", "state": "pausing", "domain": "default", "memory_bytes": 256 << 20, "allocation_bytes": 32 << 20,
            "resident_bytes": 31 << 20, "operations_total": 7, "status_age_seconds": 12.34, "old": true, "shares": 1000,
            "reservation_bytes": 36 << 20, "limit_bytes": 261 << 20,
        });
        let text = table(&json!({ "guests": [guest] })).unwrap();
        let row: Vec<_> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!((row[0], row[1]), ("guest1", "pausing"));
        assert!(text.ends_with(" 7  12.3 s (old)\n"), "{text}");
        assert_eq!(table(&json!({ "guests": [{}] })), None);
    }
}
