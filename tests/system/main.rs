//! Whole-system tests: the built `ballast`, real guests, the kernel's own books. One file per class of promise.
//!
//! They are heavy, and memory is what they measure: [`support::Turn`] lets one run at a time. Those that need `/dev/kvm` say loudly
//! when they cannot run.

#![allow(clippy::unwrap_used, reason = "tests")]

mod bad_input;
mod images;
mod levers;
mod loss;
mod promise;
mod support;
