//! The words by which the image is told what to do on machines that are not the VMM's own, where there is no
//! boot information.
//!
//! ```text
//!   workload=zipf seed=42 floor=64 virtio_mmio.device=512@0xfeb00e00:12 virtio_mmio.device=...
//! ```
//!
//! QEMU's `microvm` adds the last ones itself, one a device, in the form that Linux knows (its
//! `kernel-parameters.txt`). Words that mean nothing here are somebody else's, and passed over.

use wire::machine::Workload;

/// What was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandLine<'a> {
    text: &'a str,
}

impl<'a> CommandLine<'a> {
    /// The words of this text.
    pub fn new(text: &'a str) -> CommandLine<'a> {
        CommandLine { text }
    }

    /// `workload=NAME`; idle if there is none, `None` if it is not known.
    pub fn workload(&self) -> Option<Workload> {
        let Some(name) = self.value("workload") else { return Some(Workload::Idle) };
        Workload::NAMES.iter().find(|(known, _)| *known == name).map(|&(_, workload)| workload)
    }

    /// `NAME=NUMBER`, decimal; 0 if there is none, or no number.
    pub fn number(&self, name: &str) -> u64 {
        self.value(name).and_then(|value| value.parse().ok()).unwrap_or(0)
    }

    /// Whether this word is there.
    pub fn has(&self, word: &str) -> bool {
        self.text.split_ascii_whitespace().any(|found| found == word)
    }

    /// Addresses of `virtio_mmio.device=BYTES@ADDRESS:INTERRUPT`.
    pub fn virtio_mmio(&self) -> impl Iterator<Item = u64> + use<'a> {
        self.values("virtio_mmio.device").filter_map(|device| {
            let (_bytes, place) = device.split_once('@')?;
            let (address, _interrupt) = place.split_once(':')?;
            u64::from_str_radix(address.strip_prefix("0x")?, 16).ok()
        })
    }

    fn value(&self, name: &str) -> Option<&'a str> {
        self.values(name).next()
    }

    fn values<'b>(&self, name: &'b str) -> impl Iterator<Item = &'a str> + use<'a, 'b> {
        let words = self.text.split_ascii_whitespace();
        words.filter_map(move |word| word.strip_prefix(name)?.strip_prefix('='))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    #[test]
    fn words_are_found_among_others() {
        let line = CommandLine::new(
            "quiet workload=churn seed=7 virtio_mmio.device=512@0xfeb00c00:11 virtio_mmio.device=512@0xfeb00e00:12",
        );
        assert_eq!(line.workload(), Some(Workload::Churn));
        assert_eq!((line.number("seed"), line.number("floor"), line.number("workload")), (7, 0, 0));
        assert!(line.has("quiet") && !line.has("seed"));
        assert_eq!(line.virtio_mmio().collect::<Vec<_>>(), [0xfeb0_0c00, 0xfeb0_0e00]);
    }

    #[test]
    fn a_workload_that_is_not_known_is_none_and_none_at_all_is_idle() {
        assert_eq!(CommandLine::new("workload=everything").workload(), None);
        assert_eq!(CommandLine::new("workload").workload(), Some(Workload::Idle));
    }

    proptest! {
        #[test]
        fn nonsense_is_passed_over(text in "[ =@:.x0-9a-z_]{0,64}", devices in proptest::collection::vec("[0-9a-fx@:]{0,24}", 0..4)) {
            let line = devices.iter().fold(text, |line, device| std::format!("{line} virtio_mmio.device={device}"));
            let line = CommandLine::new(&line);
            prop_assert!(line.virtio_mmio().count() <= 4 + line.text.matches("device").count());
            line.workload();
            line.number("seed");
        }
    }
}
