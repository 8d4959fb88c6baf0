//! Whole-system tests: the built `ballast`, real guests, the kernel's own books. One room per class of
//! promise, one file per promise.
//!
//! They are heavy, and memory is what they measure: [`support::Turn`] lets one run at a time. Those that need
//! `/dev/kvm`, root or a program of Debian's say loudly when they cannot run.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

/// What is told of a running host, and whether it is so.
mod figures {
    mod books;
    mod endpoint;
    mod freshness;
    mod scrape;
}

/// Guests, drivers and devices that others wrote.
mod foreign {
    mod linux_driver;
    mod qemu_device;
}

/// Ways to hold less memory, and runs that lack one.
mod levers {
    mod clean;
    mod domains;
    mod hinting;
    mod images;
    mod missing;
    mod of_guests;
    mod swap;
}

/// Linux guests.
mod linux {
    mod boots;
    mod kernels;
    mod machine;
}

/// Processes start, stop, end and are killed.
mod lives {
    mod loss;
    mod pause;
    mod restarts;
    mod starts;
    mod watchdogs;
}

/// More memory than there is, kept to what was said of it.
mod promises {
    mod between_runs;
    mod explanations;
    mod floors;
    mod of_guests;
    mod overcommit;
    mod reclaim;
    mod states;
}

/// What cannot work is refused before any guest starts.
mod refused {
    mod machine;
    mod usage;
}

/// The kernel's swap as a place for guests' pages.
mod tier {
    mod device;
    mod faults;
    mod hostile;
    mod kills;
    pub mod kit;
    mod lacks;
}
