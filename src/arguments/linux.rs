//! What of `ballast run` is about Linux guests.

use std::path::PathBuf;

use clap::Args;
use host::{DiskRequest, LinuxRequest, TapRequest};

#[derive(Debug, Args)]
#[command(next_help_heading = "Linux guests")]
pub struct Linux {
    /// Start this kernel instead of the bare guest: a bzImage (vmlinuz) or an ELF file (vmlinux)
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Its initial RAM disk
    #[arg(long, value_name = "FILE", requires = "kernel")]
    initrd: Option<PathBuf>,
    /// What it is told, besides console=ttyS0 and pci=off
    #[arg(long, value_name = "TEXT", requires = "kernel", allow_hyphen_values = true, default_value = "")]
    cmdline: String,
    /// A disk of each guest: a raw file or a block device, :ro to only read it; repeatable
    #[arg(long = "disk", value_name = "FILE[:ro]", requires = "kernel")]
    disks: Vec<DiskRequest>,
    /// A network interface of each guest: a tap that there is; repeatable. Of one guest: --guest 0:tap=NAME
    #[arg(long = "net", value_name = "tap=NAME", requires = "kernel")]
    taps: Vec<TapRequest>,
    /// Standard input and output are the console of the first guest; Ctrl-] ends the run
    #[arg(long, requires = "kernel")]
    console: bool,
    /// Run until all guests have switched themselves off, instead of for a time
    #[arg(long, requires = "kernel", conflicts_with = "duration")]
    pub until_poweroff: bool,
}

impl Linux {
    /// What is to be started, if it is Linux.
    pub fn into_request(self) -> Option<LinuxRequest> {
        let Linux { kernel, initrd, cmdline, disks, taps, console, until_poweroff: _ } = self;
        kernel.map(|kernel| LinuxRequest { kernel, initrd, command_line: cmdline, disks, taps, console })
    }
}
