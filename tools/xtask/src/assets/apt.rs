//! Debian's package tools: downloading, unpacking and installing packages.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result};

use crate::failure;

/// Downloads `package` and unpacks it into `into`. Needs no root as long as apt has its lists.
///
/// # Errors
/// Exit code 4, with what is missing and the command that helps.
pub fn unpack(package: &str, into: &Path) -> Result<()> {
    let downloads = tempfile::tempdir_in(into).context("cannot make a temporary directory")?;
    eprintln!("xtask: downloading {package}");
    let download = || run(Command::new("apt-get").args(["-q", "download", package]).current_dir(downloads.path()));
    let mut output = download().map_err(|error| no_apt(package, &error))?;
    if !output.status.success() && update() {
        output = download()?;
    }
    if !output.status.success() {
        return Err(failure::host(format!(
            "{package} is needed and `apt-get download {package}` failed: {}; \
             try `sudo apt-get update` and see that the network is up",
            last_line(&output.stderr)
        )));
    }
    let archive = downloads
        .path()
        .read_dir()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .with_context(|| format!("apt-get download {package} left no .deb file"))?;
    let output = run(Command::new("dpkg").arg("-x").arg(archive).arg(into))?;
    if !output.status.success() {
        return Err(failure::host(format!("dpkg cannot unpack {package}: {}", last_line(&output.stderr))));
    }
    Ok(())
}

/// The packages `package` depends on, as apt knows them.
///
/// # Errors
/// Exit code 4 when apt is missing or does not know the package.
pub fn depends(package: &str) -> Result<Vec<String>> {
    let ask = || run(Command::new("apt-cache").args(["depends", "--important", package]));
    let mut output = ask().map_err(|error| no_apt(package, &error))?;
    let mut found = parse_depends(&String::from_utf8_lossy(&output.stdout));
    if found.is_empty() && update() {
        output = ask()?;
        found = parse_depends(&String::from_utf8_lossy(&output.stdout));
    }
    if found.is_empty() {
        return Err(failure::host(format!(
            "apt does not know the package {package}; run `sudo apt-get update` (Debian amd64 has it)"
        )));
    }
    Ok(found)
}

fn parse_depends(text: &str) -> Vec<String> {
    text.lines().filter_map(|line| line.trim().strip_prefix("Depends: ")).map(str::to_owned).collect()
}

/// Installs `package`.
///
/// # Errors
/// Exit code 4 when there is no apt, no root, or apt fails.
pub fn install(package: &str) -> Result<()> {
    let help = format!("{package} is needed; run `sudo apt-get install --no-install-recommends {package}`");
    let Some(mut command) = privileged("apt-get") else {
        return Err(failure::host(format!("{help} (not root, and sudo wants a password)")));
    };
    eprintln!("xtask: installing {package}");
    command.args(["-qq", "install", "-y", "--no-install-recommends", package]);
    command.env("DEBIAN_FRONTEND", "noninteractive");
    let mut output = run(&mut command).map_err(|error| no_apt(package, &error))?;
    if !output.status.success() && update() {
        output = run(&mut command)?;
    }
    if !output.status.success() {
        return Err(failure::host(format!("{help} (it failed: {})", last_line(&output.stderr))));
    }
    Ok(())
}

/// Fetches apt's lists anew, if this user may. Says whether it worked.
fn update() -> bool {
    let Some(mut command) = privileged("apt-get") else { return false };
    eprintln!("xtask: apt-get update");
    run(command.args(["-q", "update"])).is_ok_and(|output| output.status.success())
}

/// `program` as root: directly, by a sudo that asks nothing, or not at all.
fn privileged(program: &str) -> Option<Command> {
    let root = run(Command::new("id").arg("-u")).is_ok_and(|output| output.stdout == b"0\n");
    if root {
        return Some(Command::new(program));
    }
    let sudo = run(Command::new("sudo").args(["-n", "true"])).is_ok_and(|output| output.status.success());
    sudo.then(|| {
        let mut command = Command::new("sudo");
        command.args(["-n", "--preserve-env=DEBIAN_FRONTEND", program]);
        command
    })
}

fn run(command: &mut Command) -> Result<Output> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.env("LC_ALL", "C").stdin(Stdio::null()).output().with_context(|| format!("cannot run {name}"))
}

fn no_apt(package: &str, error: &anyhow::Error) -> anyhow::Error {
    failure::host(format!("{package} is needed, and this host has no working apt to get it with ({error:#})"))
}

fn last_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("no message").to_owned()
}

#[cfg(test)]
mod tests;
