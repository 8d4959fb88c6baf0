//! The text of `/metrics`, made anew no more often than is worth its CPU time: whoever asks in between gets
//! the same bytes.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use axum::body::Bytes;

use crate::sync::lock;

/// No figure is newer than the guests' last words, which come ten times a second.
const AGE_MIN: Duration = control::STATUS_INTERVAL;
/// How much longer than its making took a text is good for: at most a tenth of a CPU makes texts, 256 guests'
/// as well.
const AGE_COSTS: u32 = 10;

/// The last text.
#[derive(Debug, Default)]
pub(super) struct Scrape(Mutex<Option<Text>>);

#[derive(Debug)]
struct Text {
    bytes: Bytes,
    until: Instant,
}

impl Scrape {
    /// The last text if it is still good, or a new one.
    pub(super) fn get<E>(&self, make: impl FnOnce() -> Result<String, E>) -> Result<Bytes, E> {
        let mut last = lock(&self.0);
        let begun = Instant::now();
        if let Some(text) = last.as_ref().filter(|text| begun < text.until) {
            return Ok(text.bytes.clone());
        }
        let bytes = Bytes::from(make()?);
        let made = Instant::now();
        let until = made + AGE_MIN.max((made - begun) * AGE_COSTS);
        *last = Some(Text { bytes: bytes.clone(), until });
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_often_gets_the_same_text_and_later_another() {
        let (scrape, made) = (Scrape::default(), std::cell::Cell::new(0));
        let get = || {
            scrape.get(|| {
                made.set(made.get() + 1);
                Ok::<_, ()>(made.get().to_string())
            })
        };
        let begun = Instant::now();
        while made.get() < 3 {
            assert_eq!(get().unwrap(), made.get().to_string().as_bytes());
        }
        assert!(begun.elapsed() >= 2 * AGE_MIN, "each was good for a while");
        assert_eq!(scrape.0.lock().unwrap().take().map(|text| text.bytes), Some(Bytes::from("3")));
        assert_eq!(scrape.get(|| Err("no text")), Err("no text"));
        assert_eq!(get().unwrap(), "4".as_bytes(), "a failure is not kept");
    }
}
