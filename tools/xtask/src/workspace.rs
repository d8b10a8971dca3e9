//! Where the workspace is, and building its programs with cargo.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The workspace's root directory.
pub fn root() -> PathBuf {
    // cargo sets the variable for `cargo run`; the constant serves a copied binary.
    let manifest = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let manifest = PathBuf::from(manifest);
    manifest.ancestors().nth(2).unwrap_or(&manifest).to_path_buf()
}

/// Cargo's target directory: `CARGO_TARGET_DIR`, or `target` in the workspace.
pub fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) if !dir.is_empty() => env::current_dir().unwrap_or_default().join(dir),
        _ => root().join("target"),
    }
}

/// A `cargo` command that runs in the workspace's root.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command.current_dir(root());
    // What `cargo run` set for xtask itself would make other crates rebuild.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

/// A `cargo` command for a release build: linked statically, as users get it, and so that what runs in other systems needs nothing there.
/// One kind for all, since another would compile everything once more.
pub fn release(command: &str) -> Command {
    // Named, so that the flags do not reach build scripts.
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    let flags = env::var("RUSTFLAGS").unwrap_or_default() + " -C target-feature=+crt-static";
    let mut cargo = cargo();
    cargo.args([command, "--release", "--target", TARGET]).env("RUSTFLAGS", flags.trim());
    cargo
}

/// A `cargo` command for the guest kernel: in its folder, where its flags are, and with nothing that would override them.
pub fn guest_cargo() -> Command {
    let mut command = cargo();
    command.current_dir(root().join("guest"));
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "CARGO_BUILD_RUSTFLAGS"] {
        command.env_remove(name);
    }
    command.env("CARGO_TARGET_DIR", target().join("guest"));
    command
}

/// The package that has a program called `name`, if any has.
///
/// # Errors
/// When cargo cannot read the workspace.
pub fn package_of_program(name: &str) -> Result<Option<String>> {
    let output = cargo()
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata failed");
    }
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata: bad JSON")?;
    Ok(find_program(&metadata, name))
}

fn find_program(metadata: &Value, name: &str) -> Option<String> {
    metadata["packages"].as_array()?.iter().find_map(|package| {
        let has = package["targets"].as_array()?.iter().any(|target| {
            target["name"] == name && target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|k| k == "bin"))
        });
        if has { package["name"].as_str().map(str::to_owned) } else { None }
    })
}

/// Builds the program `name` of `package` in release and gives the path of the executable.
///
/// # Errors
/// When the build fails; the compiler's own messages are on stderr by then.
pub fn build_program(package: &str, name: &str) -> Result<PathBuf> {
    build("build", &["-p", package, "--bin", name], name)
}

/// Builds the integration test `name` in release and gives the path of the executable.
///
/// # Errors
/// As [`build_program`].
pub fn build_test(name: &str) -> Result<PathBuf> {
    build("test", &["--test", name, "--no-run"], name)
}

/// Builds in release by this command of cargo's, and gives the path of the executable that target `name` became.
///
/// # Errors
/// When the build fails or makes no executable of that name.
pub fn build(command: &str, args: &[&str], name: &str) -> Result<PathBuf> {
    let said = format!("cargo {command} --release {}", args.join(" "));
    let output = release(command)
        .args(args)
        .args(["--quiet", "--message-format=json-render-diagnostics"])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        bail!("`{said}` failed");
    }
    executable(&String::from_utf8_lossy(&output.stdout), name)
        .with_context(|| format!("`{said}` made no executable called {name}"))
}

/// Finds the executable of target `name` in cargo's JSON messages.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact" && message["target"]["name"] == name)
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .next_back()
}

#[cfg(test)]
mod tests;
