//! The scanner's letter box, and the rest of what other threads may do with it: post answers, wake it, read
//! its figures.
//!
//! Questions come first, however many shares are in the box: the store waits for the answers, and so do all
//! guests that want the same content. That turns their order around, which is safe: a frame is looked up
//! among the published ones whenever one is to be shared.
//!
//! Bounded: shares are hints, and dropped when the box is full; the store asks for at most a few thousand
//! pages at a time and retires one batch at a time, and those are always kept.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use control::merge::{Answer, MergeAnswer};
use control::status::DedupStatus;
use control::sync::lock;

/// Messages with shares in the box before more are dropped: what the store can answer while a scanner is busy
/// with one of them.
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
    /// Pages to publish, frames to retire.
    questions: VecDeque<MergeAnswer>,
    /// Pages to share, or that there is no room for.
    hints: VecDeque<MergeAnswer>,
    woken: bool,
    hurry: bool,
}

impl Inbox {
    fn next(&mut self) -> Option<MergeAnswer> {
        self.questions.pop_front().or_else(|| self.hints.pop_front())
    }
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
    pub fn post(&self, answer: MergeAnswer) {
        let inbox = &mut *self.inbox();
        match answer {
            MergeAnswer::Retire(_) => inbox.questions.push_back(answer),
            MergeAnswer::Answers(answers) => {
                let (wanted, hints): (Vec<_>, Vec<_>) =
                    answers.into_iter().partition(|(_, answer)| matches!(answer, Answer::Publish(_)));
                if !wanted.is_empty() {
                    inbox.questions.push_back(MergeAnswer::Answers(wanted));
                }
                if !hints.is_empty() && inbox.hints.len() < INBOX_MAX {
                    inbox.hints.push_back(MergeAnswer::Answers(hints));
                }
            }
        }
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
        lock(&self.shared.status).clone()
    }

    pub(crate) fn set_status(&self, status: &DedupStatus) {
        lock(&self.shared.status).clone_from(status);
    }

    /// Waits for at most `pause`.
    pub(crate) fn wait(&self, pause: Duration) -> Event {
        let deadline = Instant::now() + pause;
        let mut inbox = self.inbox();
        loop {
            if let Some(answer) = inbox.next() {
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
        lock(&self.shared.inbox)
    }
}

#[cfg(test)]
mod tests {
    use wire::{Frame, Gfn};

    use super::*;

    fn all(handle: &ScannerHandle) -> Vec<MergeAnswer> {
        let next = || match handle.wait(Duration::ZERO) {
            Event::Answer(answer) => Some(answer),
            Event::Hurry | Event::Woken | Event::Timeout => None,
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn questions_come_first_whatever_came_with_them() {
        let (handle, share) = (ScannerHandle::default(), (Gfn(3), Answer::Share(Frame(3))));
        handle.post(MergeAnswer::Answers(vec![(Gfn(1), Answer::Share(Frame(1)))]));
        handle.post(MergeAnswer::Answers(vec![share, (Gfn(4), Answer::Publish(Frame(4))), (Gfn(6), Answer::NoRoom)]));
        handle.post(MergeAnswer::Retire(vec![Frame(5)]));
        assert_eq!(
            all(&handle),
            [
                MergeAnswer::Answers(vec![(Gfn(4), Answer::Publish(Frame(4)))]),
                MergeAnswer::Retire(vec![Frame(5)]),
                MergeAnswer::Answers(vec![(Gfn(1), Answer::Share(Frame(1)))]),
                MergeAnswer::Answers(vec![share, (Gfn(6), Answer::NoRoom)]),
            ]
        );
    }

    #[test]
    fn a_full_box_drops_shares_but_no_question() {
        let handle = ScannerHandle::default();
        for _ in 0..INBOX_MAX + 3 {
            handle.post(MergeAnswer::Answers(vec![
                (Gfn(1), Answer::Share(Frame(1))),
                (Gfn(4), Answer::Publish(Frame(4))),
            ]));
            handle.post(MergeAnswer::Retire(vec![Frame(5)]));
        }
        assert_eq!(all(&handle).len(), INBOX_MAX + 2 * (INBOX_MAX + 3));
    }
}
