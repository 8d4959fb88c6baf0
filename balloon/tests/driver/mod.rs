//! What the tests of the balloon add to a driver, and a sink that checks what it is handed.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::ops::Range;
use std::sync::{Arc, Mutex};

use balloon::{Balloon, PageSink};
use chains::driver::{DATA, Driver, RAM_BYTES};

/// RAM of the tests.
pub const RAM_FRAMES: u32 = (RAM_BYTES / 4096) as u32;

/// Has the next turn of the statistics queue ask, whenever it was asked last.
pub fn ask_for_statistics<S: PageSink>(balloon: &Balloon<S>) {
    balloon.set_statistics_interval_ms(1);
    assert!(balloon.poll_statistics(u64::MAX));
}

/// A driver of a balloon.
pub trait BalloonDriver {
    /// Writes page numbers to [`DATA`] and makes them available in one buffer.
    fn offer_numbers(&mut self, numbers: &[u32]) -> u16;

    /// The heads that came back since the last call. The device never writes into a buffer, and says so.
    fn take_heads(&mut self) -> Vec<u16>;
}

impl BalloonDriver for Driver {
    fn offer_numbers(&mut self, numbers: &[u32]) -> u16 {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        self.write(DATA, &bytes);
        self.offer(&[(DATA, bytes.len() as u32, 0)])
    }

    fn take_heads(&mut self) -> Vec<u16> {
        let used = self.take_used();
        assert!(used.iter().all(|&(_, bytes)| bytes == 0), "{used:?}");
        used.into_iter().map(|(head, _)| head).collect()
    }
}

/// What a sink was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    Inflate(u32, u32),
    Deflate(u32, u32),
    Free(u32, u32),
    Watch,
    Hint(u32, u32),
    Unwatch,
}

/// Writes down what it is told, and checks what the device promises.
#[derive(Debug, Default)]
pub struct Recorder {
    told: Mutex<Vec<Told>>,
    fills: Mutex<Vec<u32>>,
}

impl Recorder {
    pub fn shared() -> Arc<Recorder> {
        Arc::default()
    }

    pub fn take(&self) -> Vec<Told> {
        std::mem::take(&mut self.told.lock().unwrap())
    }

    /// What dropped pages are to be filled with.
    pub fn take_fills(&self) -> Vec<u32> {
        std::mem::take(&mut self.fills.lock().unwrap())
    }

    fn record(&self, told: fn(u32, u32) -> Told, range: Range<u32>) {
        assert!(range.start < range.end && range.end <= RAM_FRAMES, "{range:?} is empty or outside RAM");
        self.told.lock().unwrap().push(told(range.start, range.end));
    }
}

impl PageSink for Recorder {
    fn inflate(&self, range: Range<u32>) {
        self.record(Told::Inflate, range);
    }

    fn deflate(&self, range: Range<u32>) {
        self.record(Told::Deflate, range);
    }

    fn report_free(&self, range: Range<u32>, fill: u32) {
        self.fills.lock().unwrap().push(fill);
        self.record(Told::Free, range);
    }

    fn watch(&self) {
        self.told.lock().unwrap().push(Told::Watch);
    }

    fn drop_hinted(&self, range: Range<u32>, fill: u32) -> u32 {
        self.fills.lock().unwrap().push(fill);
        let pages = range.end - range.start;
        self.record(Told::Hint, range);
        pages
    }

    fn unwatch(&self) {
        self.told.lock().unwrap().push(Told::Unwatch);
    }
}
