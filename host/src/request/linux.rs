//! Linux guests: what is to be started is looked at before anything is, and opened when it is.
//!
//! ```text
//!   preflight   bytes of kernel and initial RAM disk --boot::prepare--> they would start, or why not
//!               all guests' disks and taps, opened at the same time --> nobody has one that another needs
//!   start       the same, opened again --> descriptors of the VMM, from LINUX_FD on
//! ```

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::Path;

use boot::VirtioMmio;
use control::{LinuxConfig, VcpuKind};
use wire::{Gfn, PAGE_BYTES, PageBytes};

use crate::config::{LinuxRequest, RunConfig};
use crate::error::Error;
use crate::plan::{PlannedGuest, PlannedLinux};
use crate::request::disks::DiskRequest;
use crate::request::taps::TapRequest;

/// Where guests' random numbers come from.
const RANDOM: &str = "/dev/urandom";
/// Pages that are looked at together: the domain's lock is not kept for long.
const LOADS_MAX: usize = 64;
/// What every kernel has to be told, unless it is told otherwise: where its console is, and that looking for
/// PCI devices is in vain.
const TOLD: [(&str, &str); 2] = [("console=", "console=ttyS0"), ("pci=", "pci=off")];

/// What guests of so much RAM start, if they are Linux guests.
pub(crate) fn plan(config: &RunConfig, memory_bytes: u64) -> Result<Option<PlannedLinux>, Error> {
    let Some(request) = &config.linux else {
        let lacks = |one: &str| Error::Contradiction {
            one: one.into(),
            other: "bare guests".into(),
            way_out: "give a kernel: --kernel FILE".into(),
        };
        return if config.until_poweroff { Err(lacks("--until-poweroff")) } else { Ok(None) };
    };
    let contradiction = |one: &str, way_out: &str| {
        Err(Error::Contradiction { one: one.into(), other: "--kernel".into(), way_out: way_out.into() })
    };
    if config.vcpu == VcpuKind::Hosted {
        return contradiction("--vcpu hosted", "Linux guests need /dev/kvm, leave it out");
    }
    if request.console && config.restart_every.is_some() {
        return Err(Error::Contradiction {
            one: "--console".into(),
            other: "--restart-every".into(),
            way_out: "a console is one life's, leave one of them out".into(),
        });
    }
    if !config.images.is_empty() {
        return contradiction("--image", "leave one of them out");
    }
    let LinuxRequest { kernel, initrd, command_line, disks, taps, console: _ } = request.clone();
    let linux = PlannedLinux { kernel, initrd, command_line: told(&command_line), disks, taps, preload_bytes: 0 };
    // Whether it would start.
    let mut pages = 0;
    linux.each_load(config.vcpus, memory_bytes, |some| pages += some.len())?;
    Ok(Some(PlannedLinux { preload_bytes: (pages * PAGE_BYTES) as u64, ..linux }))
}

/// Whether all guests can have their disks and taps at the same time, each guest as many as a machine has
/// places for besides its balloon and its source of random numbers.
pub(crate) fn check_devices(guests: &[PlannedGuest]) -> Result<(), Error> {
    let most = VirtioMmio::MOST - 2;
    let mut opened = Vec::new();
    for (guest, linux) in guests.iter().filter_map(|guest| Some((guest, guest.linux.as_ref()?))) {
        let count = linux.disks.len() + linux.taps.len();
        if count > most {
            let allowed = format!("at most {most} a guest ({} has {count})", guest.name);
            return Err(Error::OutOfRange { option: "--disk and --net", value: count.to_string(), allowed });
        }
        opened.extend(linux.devices()?);
    }
    Ok(())
}

fn read(option: &'static str, path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::Unreadable { option, path: path.into(), source })
}

/// A command line with what it has to say.
fn told(line: &str) -> String {
    let missing = TOLD.iter().filter(|(key, _)| !line.split(' ').any(|word| word.starts_with(key)));
    let words: Vec<&str> =
        Some(line).filter(|line| !line.is_empty()).into_iter().chain(missing.map(|&(_, word)| word)).collect();
    words.join(" ")
}

impl PlannedLinux {
    /// Calls `loads` with the pages that guests of so much RAM load, some at a time, but for those of zeros;
    /// an error says why it would not start. What differs from guest to guest, as devices do, may be wrong.
    pub(crate) fn each_load(
        &self,
        vcpus: u32,
        ram_bytes: u64,
        mut loads: impl FnMut(&[(Gfn, PageBytes)]),
    ) -> Result<(), Error> {
        let kernel = read("--kernel", &self.kernel)?;
        let initrd = self.initrd.as_deref().map(|path| read("--initrd", path)).transpose()?;
        let config = boot::Config {
            kernel: &kernel,
            initrd: initrd.as_deref(),
            command_line: &self.command_line,
            ram_bytes,
            vcpus,
            devices: &[],
            prefer: boot::Protocol::default(),
        };
        let boot = boot::prepare(&config).map_err(|source| Error::Kernel { path: self.kernel.clone(), source })?;
        // All of it is below the hole, where addresses number pages.
        let mut pages = boot.pages().map(|(gpa, bytes)| (Gfn((gpa / PAGE_BYTES as u64) as u32), bytes));
        loop {
            let some: Vec<_> = pages.by_ref().take(LOADS_MAX).collect();
            if some.is_empty() {
                return Ok(());
            }
            loads(&some);
        }
    }

    /// What its VMM inherits, in the order of [`LinuxConfig`]; the one with `console` has it for one.
    pub(crate) fn open(&self, console: Option<OwnedFd>) -> Result<Vec<OwnedFd>, Error> {
        let read = |option, path: &Path| {
            let opened = File::open(path).map(OwnedFd::from);
            opened.map_err(|source| Error::Unreadable { option, path: path.into(), source })
        };
        let mut files = vec![read("--kernel", &self.kernel)?];
        files.extend(self.initrd.as_deref().map(|path| read("--initrd", path)).transpose()?);
        files.push(read("random numbers from", Path::new(RANDOM))?);
        files.extend(console);
        files.extend(self.devices()?);
        Ok(files)
    }

    /// Its disks, then its taps.
    fn devices(&self) -> Result<Vec<OwnedFd>, Error> {
        let disks = self.disks.iter().map(DiskRequest::open);
        disks.chain(self.taps.iter().map(TapRequest::open)).map(|file| Ok(file?.into())).collect()
    }

    /// What its VMM is told of them.
    pub(crate) fn config(&self, console: bool) -> LinuxConfig {
        LinuxConfig {
            command_line: self.command_line.clone(),
            initrd: self.initrd.is_some(),
            console,
            read_only_disks: self.disks.iter().map(|disk| disk.read_only).collect(),
            macs: self.taps.iter().map(TapRequest::mac).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_told_of_its_console_and_that_there_is_no_pci_unless_it_is_told_otherwise() {
        assert_eq!(told(""), "console=ttyS0 pci=off");
        assert_eq!(told("quiet panic=-1"), "quiet panic=-1 console=ttyS0 pci=off");
        assert_eq!(told("pci=conf1 console=hvc0"), "pci=conf1 console=hvc0");
        assert_eq!(told("noconsole=1"), "noconsole=1 console=ttyS0 pci=off");
    }
}
