//! The balloon's driver, on a virtqueue, on a transport.

pub mod balloon;
pub mod driver;
pub mod queue;
pub mod supply;
pub mod transport;
