//! Which thread runs first where many want a CPU.

/// A nice value (`sched(7)`) with a tenth of the weight of an ordinary thread.
const NICE_LAST: i32 = 10;

/// The calling thread's nice value, which it lowers and raises by itself. Raising it back takes a privilege
/// (`CAP_SYS_NICE`); whoever has none stays as it is.
#[derive(Debug)]
pub struct Precedence {
    yields: bool,
    may_yield: bool,
}

impl Precedence {
    /// An ordinary thread, which yields to others when it is told to, if it `may_yield` and could take that
    /// back.
    pub fn ordinary(may_yield: bool) -> Precedence {
        // Only where it can be seen that it comes back: a thread that stayed so would be the last for ever.
        let may_yield = may_yield && set_nice(-1) && set_nice(0);
        Precedence { yields: false, may_yield }
    }

    /// Whether all others run first from now on.
    pub fn yields(&mut self, yields: bool) {
        if self.may_yield && yields != self.yields && set_nice(if yields { NICE_LAST } else { 0 }) {
            self.yields = yields;
        }
    }
}

/// Whether the calling thread has this nice value now.
fn set_nice(nice: i32) -> bool {
    // SAFETY: it changes no memory. 0 is the calling thread, on Linux.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) == 0 }
}

#[cfg(test)]
mod tests {
    use std::{fs, thread};

    use super::*;

    fn nice() -> String {
        let stat = fs::read_to_string("/proc/thread-self/stat").unwrap();
        stat.rsplit(") ").next().unwrap().split(' ').nth(16).unwrap().to_owned()
    }

    #[test]
    fn a_thread_yields_only_if_it_can_come_back() {
        let yielded = |may_yield| {
            thread::spawn(move || {
                let mut precedence = Precedence::ordinary(may_yield);
                let before = nice();
                precedence.yields(true);
                let yielded = nice() != before;
                precedence.yields(false);
                assert_eq!(nice(), before);
                yielded
            })
            .join()
            .unwrap()
        };
        assert!(!yielded(false));
        let is_root = nix::unistd::geteuid().is_root();
        assert!(!is_root || yielded(true));
    }
}
