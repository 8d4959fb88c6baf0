//! The scanner's letter box, and the rest of what other threads may do with it: post answers, wake it, read its figures.
//!
//! Bounded: shares are hints, and dropped when the box is full; the store asks for at most a few thousand pages at a time and
//! retires one batch at a time, and those are always kept, because the store waits for the answer.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use control::merge::{Answer, MergeAnswer};
use control::status::DedupStatus;

/// Messages in the box before shares are dropped: what the store can answer while a scanner is busy with one of them.
const INBOX_MAX: usize = 64;

/// Another thread's hold on a scanner.
#[derive(Clone, Debug, Default)]
pub struct ScannerHandle {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    inbox: Mutex<Inbox>,
    posted: Condvar,
    status: Mutex<DedupStatus>,
}

#[derive(Debug, Default)]
struct Inbox {
    answers: VecDeque<MergeAnswer>,
    woken: bool,
    hurry: bool,
}

/// Why a wait was over.
#[derive(Debug)]
pub(crate) enum Event {
    Answer(MergeAnswer),
    Hurry,
    Woken,
    Timeout,
}

impl ScannerHandle {
    /// Hands the scanner a message of the store. Never blocks for long.
    pub fn post(&self, mut answer: MergeAnswer) {
        let mut inbox = self.inbox();
        if let MergeAnswer::Answers(answers) = &mut answer
            && inbox.answers.len() >= INBOX_MAX
        {
            answers.retain(|(_, answer)| matches!(answer, Answer::Publish(_)));
            if answers.is_empty() {
                return;
            }
        }
        inbox.answers.push_back(answer);
        self.shared.posted.notify_one();
    }

    /// Ends the scanner's pause, so that it sees its stop flag.
    pub fn wake(&self) {
        self.inbox().woken = true;
        self.shared.posted.notify_one();
    }

    /// Asks for full speed: the host is short of memory.
    pub fn hurry(&self) {
        self.inbox().hurry = true;
        self.shared.posted.notify_one();
    }

    /// The scanner's figures, as of its last batch.
    pub fn status(&self) -> DedupStatus {
        self.shared.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_status(&self, status: &DedupStatus) {
        self.shared.status.lock().unwrap_or_else(PoisonError::into_inner).clone_from(status);
    }

    /// Waits for at most `pause`.
    pub(crate) fn wait(&self, pause: Duration) -> Event {
        let deadline = Instant::now() + pause;
        let mut inbox = self.inbox();
        loop {
            if let Some(answer) = inbox.answers.pop_front() {
                return Event::Answer(answer);
            }
            if std::mem::take(&mut inbox.hurry) {
                return Event::Hurry;
            }
            if std::mem::take(&mut inbox.woken) {
                return Event::Woken;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Event::Timeout;
            }
            inbox = self.shared.posted.wait_timeout(inbox, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.shared.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_box_drops_shares_but_no_question() {
        let handle = ScannerHandle::default();
        for _ in 0..INBOX_MAX {
            handle.post(MergeAnswer::Answers(vec![(1, Answer::Share(1))]));
        }
        handle.post(MergeAnswer::Answers(vec![(2, Answer::Share(2))]));
        handle.post(MergeAnswer::Answers(vec![(3, Answer::Share(3)), (4, Answer::Publish(4))]));
        handle.post(MergeAnswer::Retire(vec![5]));
        let mut kept = Vec::new();
        while let Event::Answer(answer) = handle.wait(Duration::ZERO) {
            kept.push(answer);
        }
        assert_eq!(kept.len(), INBOX_MAX + 2);
        assert_eq!(
            kept[INBOX_MAX..],
            [MergeAnswer::Answers(vec![(4, Answer::Publish(4))]), MergeAnswer::Retire(vec![5])]
        );
    }
}
