//! The devices a guest finds at its registers, and the thread that works their queues.

mod console;
mod meter;
mod thread;
pub mod virtio_mmio;

pub(crate) use self::thread::DeviceThread;
pub use self::{
    console::{Console, LINE_BYTES_MAX},
    meter::Meter,
};
