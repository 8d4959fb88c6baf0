//! Linux guests: what is to be started is looked at before anything is, and opened when it is.
//!
//! ```text
//!   preflight   bytes of kernel and initial RAM disk --boot::prepare--> they would start, or why not
//!   start       the same files, opened again --> descriptors of the VMM, from LINUX_FD on
//! ```

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use control::{LinuxConfig, VcpuKind};

use crate::config::{LinuxRequest, RunConfig};
use crate::error::Error;
use crate::plan::PlannedLinux;

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
    if !config.images.is_empty() {
        return contradiction("--image", "leave one of them out");
    }
    check(request, config.vcpus, memory_bytes)?;
    let LinuxRequest { kernel, initrd, command_line } = request.clone();
    Ok(Some(PlannedLinux { kernel, initrd, command_line: told(&command_line) }))
}

/// Whether it would start.
fn check(request: &LinuxRequest, vcpus: u32, ram_bytes: u64) -> Result<(), Error> {
    let kernel = read("--kernel", &request.kernel)?;
    let initrd = request.initrd.as_deref().map(|path| read("--initrd", path)).transpose()?;
    let config = boot::Config {
        kernel: &kernel,
        initrd: initrd.as_deref(),
        command_line: &told(&request.command_line),
        ram_bytes,
        vcpus,
        devices: &[],
        prefer: boot::Protocol::default(),
    };
    let path = request.kernel.clone();
    boot::prepare(&config).map(drop).map_err(|source| Error::Kernel { path, source })
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
    /// The files that its VMM inherits, in order.
    pub(crate) fn open(&self) -> io::Result<Vec<OwnedFd>> {
        [Some(&self.kernel), self.initrd.as_ref()]
            .into_iter()
            .flatten()
            .map(|path| Ok(File::open(path)?.into()))
            .collect()
    }

    /// What its VMM is told of them.
    pub(crate) fn config(&self) -> LinuxConfig {
        LinuxConfig { initrd: self.initrd.is_some(), command_line: self.command_line.clone() }
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
