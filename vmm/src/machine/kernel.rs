//! A kernel: prepared, and loaded into guest memory.
//!
//! Its files are mapped, so that a guest's allocation need not hold them twice.

use boot::VirtioMmio;
use pager::{Gfn, GuestMemory};

use crate::{Error, memory::Layout, sys::file::FileBytes};

/// What is started, what it is told, and what it has.
pub(super) struct Kernel {
    pub kernel: FileBytes,
    pub initrd: Option<FileBytes>,
    pub command_line: String,
    pub ram_bytes: u64,
    pub vcpus: u32,
    pub places: Vec<VirtioMmio>,
}

impl Kernel {
    pub fn prepare(&self) -> Result<boot::Boot<'_>, Error> {
        let config = boot::Config {
            kernel: &self.kernel,
            initrd: self.initrd.as_deref(),
            command_line: &self.command_line,
            ram_bytes: self.ram_bytes,
            vcpus: self.vcpus,
            devices: &self.places,
            prefer: boot::Protocol::default(),
        };
        Ok(boot::prepare(&config)?)
    }
}

/// A kernel on its way into guest memory.
pub(super) struct Loading {
    pub kernel: Kernel,
    pub layout: Layout,
}

impl Loading {
    /// Puts it there.
    pub fn load(self, memory: &GuestMemory) -> Result<(), Error> {
        for (gpa, bytes) in self.kernel.prepare()?.pages() {
            memory.populate(Gfn(self.layout.page(gpa)), &bytes).map_err(Error::Memory)?;
        }
        Ok(())
    }
}
