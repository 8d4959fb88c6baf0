//! The asking side of `ballast guest`: what guests there are, for people, and having them stop and go on.

use std::fmt::Write as _;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::bytes::ByteCount;
use crate::client::{ClientError, guest_path, patch, shown};

/// The guests of the run at `address`: as JSON, or as a table.
pub fn list_guests(address: SocketAddr, as_json: bool) -> Result<String, ClientError> {
    shown(address, "/v1/guests", as_json, table)
}

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

fn table(answer: &Value) -> Option<String> {
    let mut text = format!(
        "{:<12} {:<12} {:<12} {:>10} {:>10} {:>10} {:>14}  {}\n",
        "GUEST", "STATE", "DOMAIN", "MEMORY", "ALLOCATED", "RESIDENT", "OPERATIONS", "AGE"
    );
    for guest in answer.get("guests")?.as_array()? {
        let word = |field: &str| guest.get(field)?.as_str();
        let size = |field: &str| Some(ByteCount::rounded(guest.get(field)?.as_u64()?).to_string());
        // Writing to a `String` cannot fail.
        let _ = writeln!(
            text,
            "{:<12} {:<12} {:<12} {:>10} {:>10} {:>10} {:>14}  {}",
            word("name")?,
            word("state")?,
            word("domain")?,
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
            "resident_bytes": 31 << 20, "operations_total": 7, "status_age_seconds": 12.34, "old": true,
        });
        let text = table(&json!({ "guests": [guest] })).unwrap();
        let row: Vec<_> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!((row[0], row[1]), ("guest1", "pausing"));
        assert!(text.ends_with(" 7  12.3 s (old)\n"), "{text}");
        assert_eq!(table(&json!({ "guests": [{}] })), None);
    }
}
