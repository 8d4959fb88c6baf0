//! `ballast run --linux`: a guest for newcomers, made of Debian's packages once and kept.
//!
//! ```text
//!   guest-image/{build,kernel,init}, in this program --> scripts --build--> vmlinuz, initrd.img, recipe
//! ```
//!
//! `recipe` is what the image was made by: an image of other scripts is made anew.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What makes the image; in this order they are its recipe.
const SCRIPTS: [(&str, &str); 3] = [
    ("build", include_str!("../guest-image/build")),
    ("kernel", include_str!("../guest-image/kernel")),
    ("init", include_str!("../guest-image/init")),
];
/// What they need, and Debian's packages that have it.
const NEEDED: [(&str, &str); 7] = [
    ("bash", "bash"),
    ("apt-get", "apt"),
    ("busybox", "busybox-static"),
    ("cpio", "cpio"),
    ("python3", "python3"),
    ("xz", "xz-utils"),
    ("zstd", "zstd"),
];
/// Where the image is, or is made, for who does not want it in the cache.
const FOLDER: &str = "BALLAST_LINUX_IMAGE";

/// A kernel, and what it starts from.
#[derive(Debug)]
pub struct LinuxImage {
    /// A bzImage.
    pub kernel: PathBuf,
    /// An initial RAM disk.
    pub initrd: PathBuf,
}

impl LinuxImage {
    /// The image, made if it is not there; an error says what is missing.
    pub fn new() -> io::Result<LinuxImage> {
        let cpu = fs::read_to_string("/proc/cpuinfo")?;
        if !can_run_linux(&cpu) {
            return Err(io::Error::other(
                "the processor shows neither vmx nor svm, so KVM runs no stock kernel here; a virtual machine needs nested \
                 virtualisation, and guest-image/machine in Ballast's source emulates a machine that has it",
            ));
        }
        let folder = folder(|name| std::env::var_os(name))?;
        let image = LinuxImage { kernel: folder.join("vmlinuz"), initrd: folder.join("initrd.img") };
        if !is_made(&folder) {
            eprintln!("making a Linux guest of Debian's packages in {}, once", folder.display());
            make(&folder)?;
        }
        Ok(image)
    }
}

/// Whether the processor has what a stock kernel's guest needs.
fn can_run_linux(cpuinfo: &str) -> bool {
    cpuinfo.split_whitespace().any(|flag| flag == "vmx" || flag == "svm")
}

/// Where the image is kept, as the environment says.
fn folder(variable: impl Fn(&str) -> Option<OsString>) -> io::Result<PathBuf> {
    let set = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = || set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    set(FOLDER)
        .or_else(|| Some(cache()?.join("ballast/linux")))
        .ok_or_else(|| io::Error::other(format!("no folder for its image: set HOME or {FOLDER}")))
}

fn is_made(folder: &Path) -> bool {
    let recipe = SCRIPTS.map(|(_, text)| text).concat();
    fs::read_to_string(folder.join("recipe")).is_ok_and(|made_by| made_by == recipe)
}

fn make(folder: &Path) -> io::Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |program: &str| std::env::split_paths(&path).any(|folder| folder.join(program).exists());
    let missing: Vec<_> =
        NEEDED.into_iter().filter(|(program, _)| !is_there(program)).map(|(_, package)| package).collect();
    if !missing.is_empty() {
        return Err(io::Error::other(format!(
            "its image needs Debian's packages: apt-get install {}",
            missing.join(" ")
        )));
    }
    let scripts = folder.join("scripts");
    fs::create_dir_all(&scripts)?;
    for (name, text) in SCRIPTS {
        fs::write(scripts.join(name), text)?;
    }
    let built = Command::new("bash").arg(scripts.join("build")).arg(folder).stdin(Stdio::null()).status()?;
    if built.success() { Ok(()) } else { Err(io::Error::other("making its image failed, as said above")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_told_apart_by_their_flags() {
        assert!(can_run_linux("flags\t\t: fpu svm lm\n") && can_run_linux("flags: vmx"));
        assert!(!can_run_linux("model name: vmx's friend, svmlike\nflags: fpu lm\n"));
    }

    #[test]
    fn the_image_is_where_the_environment_says() {
        let at = |set: &[(&str, &str)]| {
            folder(|name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())).ok()
        };
        assert_eq!(at(&[("HOME", "/h"), ("XDG_CACHE_HOME", "")]), Some("/h/.cache/ballast/linux".into()));
        assert_eq!(at(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/c")]), Some("/c/ballast/linux".into()));
        assert_eq!(at(&[("HOME", "/h"), (FOLDER, "/f")]), Some("/f".into()));
        assert_eq!(at(&[]), None);
    }

    #[test]
    fn an_image_of_other_scripts_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_made(folder.path()));
        fs::write(folder.path().join("recipe"), "something else").unwrap();
        assert!(!is_made(folder.path()));
        fs::write(folder.path().join("recipe"), SCRIPTS.map(|(_, text)| text).concat()).unwrap();
        assert!(is_made(folder.path()));
    }
}
