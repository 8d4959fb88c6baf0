//! What of `ballast run` is about Linux guests.

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use host::{DiskRequest, LinuxRequest, TapRequest};

use crate::linux_image::LinuxImage;

/// What a kernel is told that was not chosen: to say little, and to end when it panics.
const CMDLINE: &str = "quiet panic=-1";
/// Guests of `--linux`, if nobody says: more than the budget's default holds.
const GUESTS: u32 = 4;

#[derive(Debug, Args)]
#[command(next_help_heading = "Linux guests", group = ArgGroup::new("linux or kernel").args(["linux", "kernel"]))]
pub struct Linux {
    /// Start Linux guests that check files in memory and switch themselves off: makes their image of Debian's
    /// packages the first time
    #[arg(long, conflicts_with = "duration")]
    linux: bool,
    /// Start this kernel instead of the bare guest: a bzImage (vmlinuz) or an ELF file (vmlinux)
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Its initial RAM disk
    #[arg(long, value_name = "FILE", requires = "kernel")]
    initrd: Option<PathBuf>,
    /// What it is told, besides console=ttyS0 and pci=off
    #[arg(long, value_name = "TEXT", requires = "linux or kernel", allow_hyphen_values = true)]
    cmdline: Option<String>,
    /// A disk of each guest: a raw file or a block device, :ro to only read it; repeatable
    #[arg(long = "disk", value_name = "FILE[:ro]", requires = "linux or kernel")]
    disks: Vec<DiskRequest>,
    /// A network interface of each guest: a tap that there is; repeatable. Of one guest: --guest 0:tap=NAME
    #[arg(long = "net", value_name = "tap=NAME", requires = "linux or kernel")]
    taps: Vec<TapRequest>,
    /// Standard input and output are the console of the first guest; Ctrl-] ends the run
    #[arg(long, requires = "linux or kernel")]
    console: bool,
    /// Run until all guests have switched themselves off, instead of for a time
    #[arg(long, requires = "linux or kernel", conflicts_with = "duration")]
    until_poweroff: bool,
}

impl Linux {
    /// Puts an image of ours in the place of a kernel, where that was asked for.
    pub fn prepare(&mut self) -> Result<(), host::Error> {
        if self.linux {
            let image = LinuxImage::new()
                .map_err(|source| host::Error::System { doing: "getting a Linux guest for --linux", source })?;
            (self.kernel, self.initrd) = (Some(image.kernel), Some(image.initrd));
            self.cmdline.get_or_insert_with(|| CMDLINE.into());
        }
        Ok(())
    }

    /// How many guests there are if nobody says, if that is special.
    pub fn guests(&self) -> Option<u32> {
        self.linux.then_some(GUESTS)
    }

    /// Whether the run has no end by time: guests of `--linux` end by themselves.
    pub fn until_poweroff(&self) -> bool {
        self.until_poweroff || self.linux
    }

    /// What is to be started, if it is Linux.
    pub fn into_request(self) -> Option<LinuxRequest> {
        let Linux { linux: _, kernel, initrd, cmdline, disks, taps, console, until_poweroff: _ } = self;
        let command_line = cmdline.unwrap_or_default();
        kernel.map(|kernel| LinuxRequest { kernel, initrd, command_line, disks, taps, console })
    }
}
