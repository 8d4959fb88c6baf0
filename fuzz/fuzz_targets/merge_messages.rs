//! Whatever VMMs send, in whatever bytes: the host does not panic, and the frame store's books hold.

#![no_main]

#[path = "../../dedup/tests/support/messages.rs"]
mod messages;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    messages::play(bytes);
});
