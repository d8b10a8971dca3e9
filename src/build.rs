//! Builds the guest kernel of `guest/`, so that the program can carry it: `TOPHALF_GUEST` is the image's path at compile time.
//!
//! `guest/` is a workspace of its own with flags of its own (`guest/.cargo/config.toml`). Flags meant for the host's program
//! must not reach it, and it gets a target folder of its own, because this build holds the lock of the other one.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// What the image is made from.
const SOURCES: [&str; 6] =
    ["guest/.cargo/config.toml", "guest/Cargo.toml", "guest/Cargo.lock", "guest/kernel", "guest/suite", "src/x86"];
/// Variables that would change the guest's flags, compiler or target, set by cargo or by users.
const CLEARED: [&str; 7] = [
    "RUSTFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_TARGET_DIR",
    "RUSTC_WORKSPACE_WRAPPER",
    "TARGET",
];

fn main() -> ExitCode {
    match build() {
        Ok(image) => {
            println!("cargo:rustc-env=TOPHALF_GUEST={}", image.display());
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("the guest kernel in guest/ was not built: {why}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<PathBuf, String> {
    for source in SOURCES {
        println!("cargo:rerun-if-changed={source}");
    }
    let variable = |name: &str| env::var_os(name).ok_or_else(|| format!("cargo did not set {name}"));
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(variable("OUT_DIR")?);
    // OUT_DIR is TARGET/PROFILE/build/PACKAGE/out.
    let target = out.ancestors().nth(4).unwrap_or(&out).join("guest");
    let mut cargo = Command::new(variable("CARGO")?);
    cargo.args(["build", "--release", "--locked", "--quiet", "--target-dir"]).arg(&target);
    cargo.current_dir(root.join("guest"));
    for name in CLEARED {
        cargo.env_remove(name);
    }
    let output = cargo.output().map_err(|e| format!("cannot run cargo: {e}"))?;
    if !output.status.success() {
        return Err(format!("cargo failed:\n{}", String::from_utf8_lossy(&output.stderr)));
    }
    let image = target.join("x86_64-unknown-linux-gnu/release/suite");
    if !Path::new(&image).is_file() {
        return Err(format!("{} is missing", image.display()));
    }
    Ok(image)
}
