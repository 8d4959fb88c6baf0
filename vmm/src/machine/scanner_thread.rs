//! The scanner on its thread; dropping it ends both.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use control::MergeRequest;
use dedup::{Scanner, ScannerConfig, ScannerHandle};

use crate::{Error, memory::GuestPages};

/// The running thread.
pub(super) struct ScannerThread {
    handle: ScannerHandle,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl ScannerThread {
    /// Scans `pages`; `send` carries requests to the host, on the scanner's thread, and answers are posted to
    /// `handle`.
    pub fn spawn(
        pages: GuestPages,
        config: ScannerConfig,
        handle: ScannerHandle,
        send: impl FnMut(MergeRequest) + Send + 'static,
    ) -> Result<ScannerThread, Error> {
        let scanner = Scanner::new(Arc::new(pages), config).with_handle(handle.clone());
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = stop.clone();
        let thread = thread::Builder::new()
            .name("scanner".into())
            .spawn(move || scanner.run(&stopping, send))
            .map_err(Error::system("starting the scanner"))?;
        Ok(ScannerThread { handle, stop, thread: Some(thread) })
    }

    /// What others may ask of the scanner.
    pub fn handle(&self) -> &ScannerHandle {
        &self.handle
    }
}

impl Drop for ScannerThread {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.handle.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
