//! Answers of the frame store for a VMM that says nothing, until it speaks again: what is bounded, and no
//! word twice.
//!
//! Orders are not kept: of those that stand the last counts ([`crate::fleet::link`]), the others come again
//! by themselves. Answers are put together, so that they are no more than the pages that the VMM asked about.

use control::merge::BATCH_MAX;
use control::{MergeAnswer, ToVmm};

/// See the module's description.
#[derive(Debug, Default)]
pub struct Kept {
    messages: Vec<ToVmm>,
}

impl Kept {
    /// Whether no message is kept.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Keeps a message, unless there are so many already: then it is the error.
    pub fn keep(&mut self, message: ToVmm, messages_max: usize) -> Result<(), ToVmm> {
        if let (Some(ToVmm::Merge(MergeAnswer::Answers(last))), ToVmm::Merge(MergeAnswer::Answers(more))) =
            (self.messages.last_mut(), &message)
            && last.len() + more.len() <= BATCH_MAX
        {
            last.extend_from_slice(more);
            return Ok(());
        }
        if self.messages.len() >= messages_max {
            return Err(message);
        }
        self.messages.push(message);
        Ok(())
    }

    /// Takes what has been kept longest, at most so many messages.
    pub fn take(&mut self, messages_max: usize) -> impl Iterator<Item = ToVmm> {
        self.messages.drain(..self.messages.len().min(messages_max))
    }
}

#[cfg(test)]
mod tests {
    use control::merge::Answer;
    use wire::{Frame, Gfn};

    use super::*;

    const MANY: usize = 1024;

    fn share(gfn: u32) -> ToVmm {
        ToVmm::Merge(MergeAnswer::Answers(vec![(Gfn(gfn), Answer::Share(Frame(gfn)))]))
    }

    fn retire() -> ToVmm {
        ToVmm::Merge(MergeAnswer::Retire(vec![Frame(7)]))
    }

    #[test]
    fn answers_are_put_together_and_come_in_their_order() {
        let mut kept = Kept::default();
        (0..3000).for_each(|gfn| kept.keep(share(gfn), MANY).unwrap());
        kept.keep(retire(), MANY).unwrap();
        let mut heard: Vec<_> = kept.take(2).collect();
        assert!(!kept.is_empty());
        heard.extend(kept.take(MANY));
        assert!(kept.is_empty());
        let lengths = heard.iter().map(|message| match message {
            ToVmm::Merge(MergeAnswer::Answers(answers)) => answers.len(),
            ToVmm::Merge(MergeAnswer::Retire(frames)) => frames.len(),
            other => panic!("{other:?}"),
        });
        assert_eq!(lengths.collect::<Vec<_>>(), [1024, 1024, 952, 1]);
    }

    #[test]
    fn no_more_is_kept_than_there_may_be() {
        let mut kept = Kept::default();
        (0..MANY).for_each(|_| kept.keep(retire(), MANY).unwrap());
        assert_eq!(kept.keep(retire(), MANY), Err(retire()));
    }
}
