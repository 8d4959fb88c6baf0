//! What a scanner is to know.

/// A guest's scanner, configured.
#[derive(Clone, Copy, Debug)]
pub struct ScannerConfig {
    /// The domain's secret.
    pub hash_secret: u64,
    /// Most CPU it may use, as a share of one: while it makes progress, or is told to hurry.
    pub cpu_share: f64,
    /// Most CPU it may use otherwise.
    pub idle_cpu_share: f64,
    /// Threads that hash; 1 is the scanner's own.
    pub hash_threads: usize,
    /// Drop zero pages, and do nothing else: nothing is hashed, told or shared.
    pub zero_pages_only: bool,
}

impl ScannerConfig {
    /// The usual: a fifth of one CPU, a twentieth while there is nothing to gain, one thread.
    pub fn new(hash_secret: u64) -> Self {
        Self { hash_secret, cpu_share: 0.2, idle_cpu_share: 0.05, hash_threads: 1, zero_pages_only: false }
    }
}
