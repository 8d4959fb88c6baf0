//! User-mode Linux: a kernel as a process, with Linux's own `virtio_balloon` as a module in an initramfs made
//! here.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::console::Console;
use crate::{find, wait_for};

const INIT: &str = "#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs -o size=80% tmp /tmp
stty -echo
PS1=
exec sh
";

/// A running kernel with a shell on its console.
#[derive(Debug)]
pub struct Uml {
    process: Child,
    keyboard: ChildStdin,
    console: Console,
    commands: u32,
    _folder: TempDir,
}

/// What Debian's packages have to be there for.
struct Installed {
    kernel: PathBuf,
    module: PathBuf,
    busybox: PathBuf,
}

impl Installed {
    fn look() -> Result<Installed, String> {
        let missing = |what: &str| format!("no {what} (Debian packages user-mode-linux, busybox-static, cpio)");
        let kernel = find(&["/usr/bin/linux.uml"]).ok_or_else(|| missing("user-mode Linux"))?;
        let busybox = find(&["/bin/busybox", "/usr/bin/busybox"]).ok_or_else(|| missing("busybox"))?;
        find(&["/bin/cpio", "/usr/bin/cpio"]).ok_or_else(|| missing("cpio"))?;
        let versions = fs::read_dir("/usr/lib/uml/modules").into_iter().flatten().flatten();
        let module = versions
            .map(|version| version.path().join("kernel/drivers/virtio/virtio_balloon.ko"))
            .find(|module| module.exists())
            .ok_or_else(|| missing("virtio_balloon module"))?;
        Ok(Installed { kernel, module, busybox })
    }

    fn initramfs(&self, folder: &Path) -> PathBuf {
        let root = folder.join("root");
        for name in ["bin", "dev", "proc", "sys", "tmp", "lib"] {
            fs::create_dir_all(root.join(name)).expect("a folder of the initramfs");
        }
        fs::copy(&self.busybox, root.join("bin/busybox")).expect("copying busybox");
        fs::copy(&self.module, root.join("lib/virtio_balloon.ko")).expect("copying the module");
        fs::write(root.join("init"), INIT).expect("writing init");
        let script = "chmod 755 init && find . | cpio -o -H newc --quiet > ../initramfs";
        let made = Command::new("sh").current_dir(&root).args(["-c", script]).status().expect("running cpio");
        assert!(made.success(), "cpio: {made}");
        folder.join("initramfs")
    }
}

impl Uml {
    /// Boots with so much memory, and `socket` as its balloon device; why not, if it is not installed.
    pub fn boot(memory_mib: u32, socket: &Path, options: &[&str]) -> Result<Uml, String> {
        let installed = Installed::look()?;
        let folder = tempfile::tempdir().expect("a folder for the initramfs");
        let initramfs = installed.initramfs(folder.path());
        let mut command = Command::new(&installed.kernel);
        command
            .arg(format!("mem={memory_mib}M"))
            .arg(format!("initrd={}", initramfs.display()))
            .arg(format!("virtio_uml.device={}:{}", socket.display(), 5))
            .args(["rdinit=/init", "con0=fd:0,fd:1", "con=null", "quiet"])
            .args(options)
            .process_group(0);
        let (process, keyboard, console) = Console::start(&mut command);
        let mut uml = Uml { process, keyboard, console, commands: 0, _folder: folder };
        uml.run("true");
        Ok(uml)
    }

    /// Runs a command in the guest's shell; what it said. The next one starts when this one has ended.
    pub fn run(&mut self, command: &str) -> String {
        self.commands += 1;
        let (begin, end) = (format!("<{}>", self.commands), format!("</{}>", self.commands));
        // Quotes, so that an echoed command line is not taken for its output.
        writeln!(self.keyboard, "echo '<'{0}'>'; {command}\necho '</'{0}'>'", self.commands).expect("typing");
        wait_for(&format!("the guest, to do: {command}"), || {
            let said = self.console.said();
            let (_, after) = said.split_once(&format!("{begin}\n"))?;
            after.split_once(&format!("{end}\n")).map(|(output, _)| output.to_owned())
        })
    }

    /// A line of `/proc/meminfo`, bytes.
    pub fn meminfo_bytes(&mut self, name: &str) -> u64 {
        let said = self.run(&format!("grep ^{name}: /proc/meminfo"));
        let kib = said.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok());
        kib.unwrap_or_else(|| panic!("no {name} in: {said}")) << 10
    }

    /// Host memory that the file behind the guest's memory takes, bytes.
    pub fn resident_bytes(&self) -> u64 {
        let descriptors = format!("/proc/{}/fd", self.process.id());
        let file = fs::read_dir(descriptors).expect("the kernel's process").flatten().find(|entry| {
            fs::read_link(entry.path()).is_ok_and(|target| target.to_string_lossy().starts_with("/dev/shm/"))
        });
        let file = file.expect("user-mode Linux keeps its memory in a file");
        fs::metadata(file.path()).expect("an open file").blocks() * 512
    }
}

impl Drop for Uml {
    /// The kernel's processes are one group.
    fn drop(&mut self) {
        let _ = killpg(Pid::from_raw(self.process.id() as i32), Signal::SIGKILL);
        let _ = self.process.wait();
    }
}
