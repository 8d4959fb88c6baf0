//! What a guest is put together of, bare or Linux.

use std::sync::Arc;

use super::kernel::Loading;
use crate::{
    board::{Board, PcBoard},
    devices::Devices,
    kvm::Vm,
    vcpus::Vcpus,
};

/// What the guest runs on.
pub(super) enum Around {
    /// A bare machine.
    Bare(Arc<Board>),
    /// A PC, for Linux.
    Pc(Arc<PcBoard>),
}

/// What surrounds guest memory, and what runs in it.
pub(super) struct Assembled {
    pub around: Around,
    pub devices: Devices,
    /// What is yet to be loaded.
    pub kernel: Option<Loading>,
    pub vm: Option<Vm>,
    pub vcpus: Vcpus,
}
