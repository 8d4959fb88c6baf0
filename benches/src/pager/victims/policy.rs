//! What a replay asks of a policy.

/// What a policy is told of accesses to resident pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sees {
    /// Nothing: as a pager in user space, which has no accessed bits.
    Faults,
    /// Everything: as a cache in its own program.
    Hits,
    /// The future as well.
    Future,
}

/// Which resident page goes next. Pages are small numbers.
pub trait Policy {
    /// The page, which was not resident, was touched, and is resident now.
    fn fault(&mut self, page: u32);
    /// A resident page was touched. A pager does not see this: only references listen.
    fn hit(&mut self, _page: u32) {}
    /// A resident page, which is resident no more.
    fn evict(&mut self) -> u32;
}

/// Pages that a trace may name.
pub fn pages(trace: &[u32]) -> usize {
    trace.iter().max().map_or(0, |&page| page as usize + 1)
}

/// Misses over accesses of the second half of the trace, in a memory of `capacity` pages that is empty at the
/// start.
pub fn miss_ratio(trace: &[u32], capacity: usize, policy: &mut dyn Policy) -> f64 {
    let mut resident = vec![false; pages(trace)];
    let (mut held, mut misses) = (0, 0);
    for (at, &page) in trace.iter().enumerate() {
        if resident[page as usize] {
            policy.hit(page);
            continue;
        }
        if held == capacity {
            let victim = policy.evict();
            assert!(std::mem::take(&mut resident[victim as usize]), "page {victim} is evicted and was not there");
            held -= 1;
        }
        resident[page as usize] = true;
        held += 1;
        misses += u32::from(at >= trace.len() / 2);
        policy.fault(page);
    }
    f64::from(misses) / (trace.len() - trace.len() / 2) as f64
}
