//! Whole-system tests: the built `ballast`, real guests, the kernel's own books. One file per class of
//! promise.
//!
//! They are heavy, and memory is what they measure: [`support::Turn`] lets one run at a time. Those that need
//! `/dev/kvm`, root or a program of Debian's say loudly when they cannot run.

#![allow(clippy::unwrap_used, reason = "tests")]

mod bad_input;
mod books;
mod clean;
mod domains;
mod endpoint;
mod explanations;
mod floors;
mod freshness;
mod guest_levers;
mod guest_promises;
mod hinting;
mod images;
mod levers;
mod linux_driver;
mod linux_guests;
mod loss;
mod missing;
mod pause;
mod promise;
mod promises;
mod qemu_device;
mod reclaim;
mod restarts;
mod scrape;
mod starts;
mod states;
mod support;
mod swap;
mod tier;
mod watchdogs;
