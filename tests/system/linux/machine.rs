//! A machine for Linux guests of Debian's own kernel and the image of `guest-image/`. Where the processor can
//! run them, this one; elsewhere an emulated one (`guest-image/machine`), slowly.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use crate::support::skipped;

/// Longest that an emulated machine may take for one test, s: some boots, on a machine that is busy.
const SECONDS_MAX: &str = "900";

/// Begins each script. `guests` starts some, whose console is fed from `$keys`; `await` tries a command until
/// it succeeds, as long as there are guests and for 200 s at the most; `over` waits for their end, and says
/// what was said; `vmm` is the process of one of them.
const PROLOGUE: &str = r#"
ip link set lo up
endpoint=127.0.0.1:9464
export RUST_LOG=info
part() { echo; echo "== $1"; }
guests() {
    ballast run --metrics $endpoint --memory ${memory:-96MiB} --kernel /image/${kernel:-vmlinux} --initrd /image/initrd.img --until-poweroff \
        --swap ${swap:-off} "$@" <${keys:-/dev/null} >said 2>errors &
    ballast=$!
}
is_gone() { ! kill -0 $ballast; }
await() {
    end=$(($(cut -d . -f 1 /proc/uptime) + 200))
    until "$@" >/dev/null 2>&1; do
        if is_gone 2>/dev/null; then echo "@no guests: $*"; break; fi
        if [ $(cut -d . -f 1 /proc/uptime) -gt $end ]; then echo "@waited in vain: $*"; break; fi
        sleep 1
    done
}
over() {
    await is_gone
    kill -9 $ballast 2>/dev/null
    wait $ballast; echo "exit code $?"
    cat said; grep -v ' guests, ' errors
}
vmm() { busybox ps -o pid,ppid | awk -v host=$ballast '$2 == host { print $1; exit }'; }
ask() { busybox wget -q -O - http://$endpoint/$1; }
more() { ask metrics | awk -v family="$1" -v of="$2" 'index($0, family "{") == 1 && index($0, of) { sum += $NF } END { exit !(sum > 0) }'; }
"#;

/// Where guests of a stock kernel can run.
pub struct Machine {
    image: PathBuf,
    is_here: bool,
}

/// What a script printed, by the names that it gave its parts: `== NAME`.
pub struct Said(String);

impl Machine {
    /// `None`, loudly, where there can be none.
    pub fn new() -> Option<Machine> {
        let image = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guest-image");
        if !nix::unistd::Uid::effective().is_root() {
            skipped("Linux guests: they need root");
            return None;
        }
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap();
        let is_here =
            cpu.split_whitespace().any(|flag| flag == "vmx" || flag == "svm") && Path::new("/dev/kvm").exists();
        let needed = ["busybox", "cpio", "zstd", "xz", "python3", "qemu-system-x86_64"];
        if let Some(missing) =
            needed.into_iter().find(|program| !(find(program).is_some() || is_here && *program == "qemu-system-x86_64"))
        {
            skipped(&format!("Linux guests: {missing} is not installed (see .ci/run)"));
            return None;
        }
        let built = Command::new("guest-image/build").arg(&image).output().unwrap();
        if !built.status.success() {
            skipped(&format!("Linux guests: no image: {}", String::from_utf8_lossy(&built.stderr).trim()));
            return None;
        }
        Some(Machine { image, is_here })
    }

    /// Runs a script of busybox's shell behind [`PROLOGUE`], in a folder and a network of its own, with
    /// `ballast` in its path and the image in `/image`. An emulated machine that did not come up is tried
    /// again, once.
    pub fn run(&self, script: &str) -> Said {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("script");
        let ballast = env!("CARGO_BIN_EXE_ballast");
        let script = format!("{PROLOGUE}\n{script}");
        let image = if self.is_here { self.image.to_str().unwrap() } else { "/image" };
        fs::write(&path, script.replace("/image", image)).unwrap();
        let run = || {
            let mut command = if self.is_here {
                let mut here = Command::new("unshare");
                here.args(["--net", "busybox", "sh"]).arg(&path).current_dir(folder.path()).env(
                    "PATH",
                    format!("{}:{}", Path::new(ballast).parent().unwrap().display(), env::var("PATH").unwrap()),
                );
                here
            } else {
                let mut machine = Command::new("guest-image/machine");
                machine.args(["-t", SECONDS_MAX, "-f", ballast, "-f", &format!("{}=/script", path.display())]);
                if let Some(path) = find("e2fsck") {
                    machine.arg("-f").arg(path);
                }
                machine.arg(&self.image).args(["--", "sh", "-c", "cd /tmp && sh /script"]);
                machine
            };
            command.stdin(Stdio::null()).output().unwrap()
        };
        let mut output = run();
        if output.status.code() == Some(125) {
            output = run();
        }
        let said = String::from_utf8_lossy(&output.stdout).replace('\r', "");
        assert_ne!(output.status.code(), Some(125), "no machine: {}\n{said}", String::from_utf8_lossy(&output.stderr));
        Said(said)
    }
}

/// A program's file.
fn find(program: &str) -> Option<PathBuf> {
    let folders = env::var_os("PATH").unwrap();
    env::split_paths(&folders).map(|folder| folder.join(program)).find(|path| path.exists())
}

impl Said {
    /// What was said in one part.
    #[track_caller]
    pub fn part(&self, name: &str) -> &str {
        let begin = format!("== {name}\n");
        let (_, part) = self.0.split_once(&begin).unwrap_or_else(|| panic!("no part {name} in\n{}", self.0));
        part.split("\n== ").next().unwrap()
    }

    /// Checks that a part has all of these.
    #[track_caller]
    pub fn assert(&self, name: &str, words: &[&str]) {
        let part = self.part(name);
        for word in words {
            assert!(part.contains(word), "{word:?} is missing in {name}:\n{part}");
        }
    }

    /// What follows these words in a part.
    #[track_caller]
    pub fn after(&self, name: &str, words: &str) -> &str {
        let part = self.part(name);
        let (_, rest) = part.split_once(words).unwrap_or_else(|| panic!("{words:?} is missing in {name}:\n{part}"));
        rest.split_whitespace().next().unwrap_or_default()
    }
}
