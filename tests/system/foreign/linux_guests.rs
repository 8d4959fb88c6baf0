//! Linux guests: Debian's own kernel, and the image of `guest-image/`, started by `ballast run`. Where the
//! processor can run it, here; elsewhere on an emulated machine (`guest-image/machine`), slowly.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use crate::support::{Turn, skipped};

/// Longest that an emulated machine may take for one test, s: five boots, on a machine that is busy.
const SECONDS_MAX: &str = "1500";

/// Where guests of a stock kernel can run.
struct Machine {
    image: PathBuf,
    is_here: bool,
}

/// What a script printed, by the names that it gave its parts: `== NAME`.
struct Said(String);

impl Machine {
    /// `None`, loudly, where there can be none.
    fn new() -> Option<Machine> {
        let image = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guest-image");
        if !nix::unistd::Uid::effective().is_root() {
            skipped("Linux guests: they need root");
            return None;
        }
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap();
        let is_here =
            cpu.split_whitespace().any(|flag| flag == "vmx" || flag == "svm") && Path::new("/dev/kvm").exists();
        let exists =
            |program: &str| env::split_paths(&env::var_os("PATH").unwrap()).any(|folder| folder.join(program).exists());
        let needed = ["busybox", "cpio", "zstd", "xz", "python3", "qemu-system-x86_64"];
        if let Some(missing) =
            needed.into_iter().find(|program| !(exists(program) || is_here && *program == "qemu-system-x86_64"))
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

    /// Runs a script of busybox's shell, with `ballast` in its path and the image in `/image`. An emulated
    /// machine that did not come up is tried again, once.
    fn run(&self, script: &str) -> Said {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("script");
        let ballast = env!("CARGO_BIN_EXE_ballast");
        let script =
            if self.is_here { script.replace("/image/", &format!("{}/", self.image.display())) } else { script.into() };
        fs::write(&path, script).unwrap();
        let run = || {
            let mut command = if self.is_here {
                let mut here = Command::new("sh");
                here.arg(&path).env(
                    "PATH",
                    format!("{}:{}", Path::new(ballast).parent().unwrap().display(), env::var("PATH").unwrap()),
                );
                here
            } else {
                let mut machine = Command::new("guest-image/machine");
                machine.args(["-t", SECONDS_MAX, "-f", ballast, "-f", &format!("{}=/script", path.display())]);
                machine.arg(&self.image).args(["--", "sh", "/script"]);
                machine
            };
            command.stdin(Stdio::null()).output().unwrap()
        };
        let mut output = run();
        if output.status.code() == Some(125) {
            output = run();
        }
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_ne!(output.status.code(), Some(125), "no machine: {}\n{said}", String::from_utf8_lossy(&output.stderr));
        Said(said)
    }
}

impl Said {
    /// What was said in one part.
    #[track_caller]
    fn part(&self, name: &str) -> &str {
        let begin = format!("== {name}\n");
        let (_, part) = self.0.split_once(&begin).unwrap_or_else(|| panic!("no part {name} in\n{}", self.0));
        part.split("\n== ").next().unwrap()
    }

    /// Checks that a part has all of these.
    #[track_caller]
    fn assert(&self, name: &str, words: &[&str]) {
        let part = self.part(name);
        for word in words {
            assert!(part.contains(word), "{word:?} is missing in {name}:\n{part}");
        }
    }
}

/// Begins each script: `run NAME OPTION...` is a part, with one guest's console and `ballast`'s last lines.
const PROLOGUE: &str = r#"
cd /tmp
run() {
    echo; echo "== $1"; shift
    ballast run --metrics 127.0.0.1:0 --memory 128MiB --budget 300MiB --swap off --initrd /image/initrd.img --until-poweroff --console "$@" \
        </dev/null 2>errors
    echo "exit code $?"; grep -v 'guests of' errors | tail -n 40
}
"#;

#[test]
fn stock_kernels_boot_find_their_devices_and_end_as_they_should() {
    let _turn = Turn::take();
    let Some(machine) = Machine::new() else { return };
    let said = machine.run(&format!(
        r#"{PROLOGUE}
        truncate -s 32M disk; truncate -s 1M fixed
        run elf --kernel /image/vmlinux --cmdline "quiet panic=-1 ballast.do=devices" --disk disk:ro
        run bzimage --kernel /image/vmlinuz --cmdline "quiet panic=-1 ballast.do=disk" --disk disk --disk fixed:ro
        run panic --kernel /image/vmlinux --cmdline "quiet panic=-1 ballast.do=panic"
        run reboot --kernel /image/vmlinux --cmdline "quiet panic=-1 ballast.do=reboot"
        "#
    ));
    said.assert(
        "elf",
        &[
            "BIOS-e820: [mem 0x0000000000000000-0x000000000009fbff] usable",
            "BIOS-e820: [mem 0x00000000000e0000-0x00000000000fffff] ACPI data",
            "BIOS-e820: [mem 0x0000000000100000-0x0000000007ffffff] usable",
            "Switched to clocksource kvm-clock",
            "@virtio 0x0005 virtio_balloon",
            "@virtio 0x0004 virtio_rng",
            "@virtio 0x0002 virtio_blk",
            "@clock kvm-clock",
            "@random 16 from virtio_rng",
            "OK: all 1 guests switched themselves off",
            "exit code 0",
        ],
    );
    assert!(
        !said.part("elf").contains("ACPI Error") && !said.part("elf").contains("ACPI Warning"),
        "{}",
        said.part("elf")
    );
    said.assert(
        "bzimage",
        &[
            "@disk: 8 MiB read back buffered and direct",
            "@disk: trimmed",
            "@disk: the second is read-only",
            "exit code 0",
        ],
    );
    said.assert("panic", &["FAILED: guest0 failed: kernel panic: sysrq triggered crash", "console: ", "exit code 1"]);
    said.assert("reboot", &["OK: all 1 guests", "exit code 0"]);
}

#[test]
fn guests_with_half_the_memory_they_were_promised_find_every_byte_right() {
    let _turn = Turn::take();
    let Some(machine) = Machine::new() else { return };
    if !machine.is_here {
        skipped("Linux guests in half of their memory: on an emulated processor they take longer than a test may");
        return;
    }
    let said = machine.run(
        r#"
        cd /tmp
        export RUST_LOG=info
        echo "== levers"
        ballast run --metrics 127.0.0.1:0 --guests 3 --memory 128MiB --budget 192MiB --swap off --kernel /image/vmlinux \
            --initrd /image/initrd.img --cmdline "quiet panic=-1 ballast.mib=32 ballast.seconds=60" --until-poweroff --report report 2>errors
        echo "exit code $?"
        grep '@work' errors
        cat report
        "#,
    );
    said.assert("levers", &["OK: all 3 guests switched themselves off", "exit code 0"]);
    let part = said.part("levers");
    let worked: Vec<_> = part.lines().filter(|line| line.contains("@work: ")).collect();
    assert!(worked.len() == 3 && worked.iter().all(|line| line.contains(" 0 wrong")), "{part}");
    let report: serde_json::Value = serde_json::from_str(&part[part.find("\n{").unwrap()..]).unwrap();
    for figure in
        ["/dedup/pages_merged_total", "/dedup/same_address_total", "/pager/evictions_total", "/pager/promotions_total"]
    {
        assert!(report.pointer(figure).unwrap().as_u64().unwrap() > 0, "{figure}: {report}");
    }
}
