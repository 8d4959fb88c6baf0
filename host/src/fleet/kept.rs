//! What a VMM that says nothing is to be told when it speaks again: what is bounded, and no word twice.
//!
//! Orders that come again by themselves (hurry, hold, sample, ask the guest) are not kept at all. Of
//! allocations the last one counts. Answers of the frame store are put together, so that they are no more
//! than the pages that the VMM asked about.

use control::merge::BATCH_MAX;
use control::{MergeAnswer, ToVmm};
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use crate::fleet::guest::{Grant, OUTBOX_MAX};

/// See the module's description.
#[derive(Debug, Default)]
pub struct Kept {
    /// Its allocation has changed.
    pub grant: bool,
    messages: Vec<ToVmm>,
}

impl Kept {
    /// Whether no message is kept.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Keeps a message, unless there are as many as an outbox holds.
    pub fn keep(&mut self, message: ToVmm) -> Result<(), TrySendError<ToVmm>> {
        if let (Some(ToVmm::Merge(MergeAnswer::Answers(last))), ToVmm::Merge(MergeAnswer::Answers(more))) =
            (self.messages.last_mut(), &message)
            && last.len() + more.len() <= BATCH_MAX
        {
            last.extend_from_slice(more);
            return Ok(());
        }
        if self.messages.len() >= OUTBOX_MAX {
            return Err(TrySendError::Full(message));
        }
        self.messages.push(message);
        Ok(())
    }

    /// Puts into the outbox what it has room for; the rest is kept, in its order.
    pub fn send(&mut self, outbox: &Sender<ToVmm>, grant: Grant) {
        if self.grant && outbox.try_send(grant.message()).is_ok() {
            self.grant = false;
        }
        let fitting = self.messages.len().min(outbox.capacity());
        for message in self.messages.drain(..fitting) {
            // Whoever is gone is reported by its reader.
            let _ = outbox.try_send(message);
        }
    }
}

#[cfg(test)]
mod tests {
    use control::merge::Answer;
    use tokio::sync::mpsc::channel;
    use wire::{Frame, Gfn};

    use super::*;

    fn share(gfn: u32) -> ToVmm {
        ToVmm::Merge(MergeAnswer::Answers(vec![(Gfn(gfn), Answer::Share(Frame(gfn)))]))
    }

    #[test]
    fn answers_are_put_together_and_the_last_allocation_is_told() {
        let mut kept = Kept::default();
        (0..3000).for_each(|gfn| kept.keep(share(gfn)).unwrap());
        kept.keep(ToVmm::Merge(MergeAnswer::Retire(vec![Frame(7)]))).unwrap();
        kept.grant = true;
        let (outbox, mut inbox) = channel(3);
        let grant = Grant { allocation_bytes: 5, balloon_bytes: 6, kernel_page_price: 7 };
        kept.send(&outbox, grant);
        assert!(!kept.is_empty() && !kept.grant);
        let mut heard: Vec<_> = std::iter::from_fn(|| inbox.try_recv().ok()).collect();
        kept.send(&outbox, grant);
        assert!(kept.is_empty());
        heard.extend(std::iter::from_fn(|| inbox.try_recv().ok()));
        let lengths = heard.iter().map(|message| match message {
            ToVmm::Allocate { allocation_bytes: 5, balloon_bytes: 6, kernel_page_price: 7 } => 0,
            ToVmm::Merge(MergeAnswer::Answers(answers)) => answers.len(),
            ToVmm::Merge(MergeAnswer::Retire(frames)) => frames.len(),
            other => panic!("{other:?}"),
        });
        assert_eq!(lengths.collect::<Vec<_>>(), [0, 1024, 1024, 952, 1]);
    }

    #[test]
    fn no_more_is_kept_than_an_outbox_holds() {
        let mut kept = Kept::default();
        let retire = || ToVmm::Merge(MergeAnswer::Retire(vec![Frame(1)]));
        (0..OUTBOX_MAX).for_each(|_| kept.keep(retire()).unwrap());
        assert!(kept.keep(retire()).is_err());
    }
}
