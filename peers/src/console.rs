//! What a guest says.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Lines collected by a thread, until the other end closes.
#[derive(Debug)]
pub(crate) struct Console(Arc<Mutex<String>>);

impl Console {
    /// Begins to read.
    pub(crate) fn of(output: impl Read + Send + 'static) -> Console {
        let said = Arc::<Mutex<String>>::default();
        let hears = said.clone();
        thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                let mut said = hears.lock().unwrap_or_else(PoisonError::into_inner);
                said.push_str(String::from_utf8_lossy(&line).trim_end());
                said.push('\n');
            }
        });
        Console(said)
    }

    /// Everything so far.
    pub(crate) fn said(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
