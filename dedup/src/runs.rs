//! Runs: neighbouring pages that map to neighbouring frames. Only runs are shared, longest first, because each costs the address
//! space at most one area, whatever its length.

/// `count` pages from `gfn`, and as many frames from `frame`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) gfn: u32,
    pub(crate) frame: u32,
    pub(crate) count: u32,
}

/// Joins `(gfn, frame)` pairs into runs, longest first. Of several frames for one page, the lowest is taken.
pub(crate) fn longest_first(mut pairs: Vec<(u32, u32)>) -> Vec<Run> {
    pairs.sort_unstable();
    pairs.dedup_by_key(|pair| pair.0);
    let follows = |a: &(u32, u32), b: &(u32, u32)| a.0.checked_add(1) == Some(b.0) && a.1.checked_add(1) == Some(b.1);
    let run = |pairs: &[(u32, u32)]| Run { gfn: pairs[0].0, frame: pairs[0].1, count: pairs.len() as u32 };
    let mut runs: Vec<Run> = pairs.chunk_by(follows).map(run).collect();
    runs.sort_by_key(|run| std::cmp::Reverse(run.count));
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_join_only_if_their_frames_are_neighbours_too() {
        let runs = longest_first(vec![(9, 4), (1, 5), (2, 7), (3, 8), (4, 9), (5, 2), (2, 7)]);
        let expected =
            [(2, 7, 3), (1, 5, 1), (5, 2, 1), (9, 4, 1)].map(|(gfn, frame, count)| Run { gfn, frame, count });
        assert_eq!(runs, expected);
    }

    #[test]
    fn the_last_numbers_there_are_do_not_wrap_around() {
        let runs = longest_first(vec![(u32::MAX, u32::MAX), (0, 0)]);
        assert_eq!(runs.len(), 2);
    }
}
