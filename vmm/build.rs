//! Builds the bare guest image, with the host's own target, by a cargo of its own.
//!
//! The image needs other linker arguments and panics than the rest of the workspace, and a cargo build has
//! one set of each. So a second cargo builds it, in a target directory of its own, as the first one's is
//! locked. It has the same lock file and no network: it needs no crate but our own two.

use std::path::PathBuf;
use std::process::Command;
use std::{env, process};

/// What the outer cargo sets for its own compiler runs, and the inner must not inherit.
const FOREIGN: [&str; 9] = [
    "RUSTFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "CARGO_BUILD_RUSTC_WRAPPER",
    "CARGO_BUILD_RUSTC_WORKSPACE_WRAPPER",
    "CARGO_BUILD_TARGET",
    "CARGO_TARGET_DIR",
    "CARGO_BUILD_TARGET_DIR",
];

fn main() {
    let variable = |name: &str| env::var(name).unwrap_or_else(|_| fail(&format!("cargo did not set {name}")));
    let workspace = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("..");
    let guest = workspace.join("guest-driver");
    for input in ["guest-driver/src", "guest-driver/image.ld", "guest-driver/Cargo.toml", "wire/src", "vmm/build.rs"] {
        println!("cargo:rerun-if-changed={}", workspace.join(input).display());
    }

    let target = PathBuf::from(variable("OUT_DIR")).join("bare-guest");
    let mut cargo = Command::new(variable("CARGO"));
    cargo.current_dir(&workspace);
    FOREIGN.into_iter().for_each(|name| {
        cargo.env_remove(name);
    });
    cargo.env("CARGO_PROFILE_RELEASE_PANIC", "abort").env("CARGO_PROFILE_RELEASE_DEBUG", "none");
    cargo.env("CARGO_PROFILE_RELEASE_STRIP", "debuginfo").env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3");
    cargo.args(["rustc", "--frozen", "--quiet", "--release", "--package", "guest-driver", "--bin", "bare-guest"]);
    cargo.args(["--features", "image", "--target-dir"]).arg(&target);
    // Position-independent code, as the image lies above 4 GiB; linked to a fixed place, so nothing relocates
    // it.
    cargo.args(["--", "-Crelocation-model=pic"]);
    let script = format!("-Wl,-T{}", guest.join("image.ld").display());
    for argument in ["-nostartfiles", "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none", &script] {
        cargo.arg(format!("-Clink-arg={argument}"));
    }
    match cargo.status() {
        Ok(status) if status.success() => {}
        Ok(status) => fail(&format!("building the bare guest image: {status}")),
        Err(error) => fail(&format!("running cargo for the bare guest image: {error}")),
    }
    println!("cargo:rustc-env=BALLAST_BARE_GUEST={}", target.join("release/bare-guest").display());
}

fn fail(why: &str) -> ! {
    eprintln!("{why}");
    process::exit(1)
}
