//! A digest of a few words of a page: tells cheaply that a page changed, though not that it did not.

/// Where a page is looked at, in bytes: its first words, where data structures and file formats keep what
/// distinguishes them, its last, and one in each quarter; six cache lines' worth of looking instead of 64.
pub(crate) const DIGEST_AT: [usize; 8] = [0, 8, 968, 1544, 2248, 2960, 3528, 4088];

/// A digest of a few words of a page, 0 if and only if all are zero. `word` reads the one at a byte offset.
pub(crate) fn digest(word: impl Fn(usize) -> u64) -> u64 {
    let words = DIGEST_AT.map(word);
    if words == [0; DIGEST_AT.len()] {
        return 0;
    }
    // The finaliser of xorshift-multiply generators: each word moves all bits.
    let mix = |sum: u64, word: u64| (sum.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    words.into_iter().fold(1, mix) | 1
}
