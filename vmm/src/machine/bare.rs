//! What a bare guest is built of: firmware with its image, the devices of its map, and vCPUs of either kind.

use std::sync::Arc;

use control::{GuestConfig, VcpuKind};
use wire::machine::{self, ACTIVE_OWN, BOOT_MAGIC, BootInfo, CONTENTS_OWN, Workload};

use super::assembled::{Around, Assembled};
use crate::{
    Error,
    board::{Board, Bus, Firmware, Gate, InterruptLine, Start},
    devices::{Devices, Parts},
    kvm::Vm,
    sys::ram::Ram,
    vcpus::Vcpus,
};

/// The bare guest, built with this program: an ELF file that starts on this VMM's machine and, by its PVH
/// entry, on QEMU's `microvm`.
pub const BARE_GUEST: &[u8] = include_bytes!(env!("BALLAST_BARE_GUEST"));

/// The guest that `config` describes, in `ram`.
pub(super) fn assemble(config: &GuestConfig, ram: Ram, parts: Parts) -> Result<Assembled, Error> {
    let (firmware, start) = firmware(config)?;
    let (gate, mut bus) = (Arc::new(Gate::default()), Bus::default());
    let line = InterruptLine::new(firmware.clone(), gate.clone());
    let devices = Devices::bare(&mut bus, config.name.clone(), line, parts)?;
    let board = Arc::new(Board::new(firmware, bus, gate));
    let (vm, vcpus) = vcpus(ram, &board, start)?;
    Ok(Assembled { around: Around::Bare(board), devices, kernel: None, vm, vcpus })
}

/// What the guest shares with us; for vCPUs of KVM, with the guest in it and where it starts.
fn firmware(config: &GuestConfig) -> Result<(Arc<Firmware>, Option<Start>), Error> {
    let mut firmware = Firmware::new(boot_info(config))?;
    let start = match config.vcpu {
        VcpuKind::Kvm => Some(firmware.load(BARE_GUEST)?),
        VcpuKind::Hosted => None,
    };
    Ok((Arc::new(firmware), start))
}

fn boot_info(config: &GuestConfig) -> BootInfo {
    // A guest whose RAM is an image must not write to it, and a balloon would take what is to be compared.
    let workload = if config.image.is_some() { Workload::Image as u32 } else { config.workload };
    BootInfo {
        magic: BOOT_MAGIC,
        ram_bytes: config.memory_bytes,
        seed: config.seed,
        guest: config.guest,
        vcpus: config.vcpus,
        workload,
        balloon: u32::from(config.levers.balloon && config.image.is_none()),
        floor_bytes: config.floor_bytes,
        contents: CONTENTS_OWN,
        active: config.active_permille.map_or(ACTIVE_OWN, machine::active),
        reserved_bytes: 0,
    }
}

/// What runs the guest: KVM from `start` on, or host threads where there is none.
fn vcpus(ram: Ram, board: &Arc<Board>, start: Option<Start>) -> Result<(Option<Vm>, Vcpus), Error> {
    let Some(start) = start else { return Ok((None, Vcpus::hosted(ram, board.clone())?)) };
    let vm = Vm::new(ram, board.firmware.clone(), start)?;
    let vcpus = Vcpus::kvm(&vm, board.clone())?;
    Ok((Some(vm), vcpus))
}
