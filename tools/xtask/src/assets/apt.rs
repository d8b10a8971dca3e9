//! Debian's package tools: downloading, unpacking and installing packages.

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

use crate::failure;

/// Downloads `package` and unpacks it into `into`. Needs no root as long as apt has its lists.
///
/// # Errors
/// Exit code 4, with what is missing and the command that helps.
pub fn unpack(package: &str, into: &Path) -> Result<()> {
    eprintln!("xtask: downloading {package}");
    fetch(package, &[package.to_owned()], into)
}

/// The same for `package` and all libraries that it needs, by the dependencies that apt knows.
///
/// # Errors
/// As [`unpack`].
pub fn unpack_with_libraries(package: &str, into: &Path) -> Result<()> {
    let ask = || run(Command::new("apt-cache").args(["depends", "--important", "--recurse", package]));
    let mut packages = with_libraries(package, &ask().map_err(|error| no_apt(package, &error))?.stdout);
    if packages.len() == 1 && update() {
        packages = with_libraries(package, &ask()?.stdout);
    }
    eprintln!("xtask: downloading {package} and {} libraries", packages.len() - 1);
    fetch(package, &packages, into)
}

/// Downloads `packages`, which are there for `package`, and unpacks them into `into`.
fn fetch(package: &str, packages: &[String], into: &Path) -> Result<()> {
    let downloads = tempfile::tempdir_in(into).context("cannot make a temporary directory")?;
    let download =
        || run(Command::new("apt-get").args(["-q", "download"]).args(packages).current_dir(downloads.path()));
    let mut output = download().map_err(|error| no_apt(package, &error))?;
    if !output.status.success() && update() {
        output = download()?;
    }
    if !output.status.success() {
        return Err(failure::host(format!(
            "{package} is needed and `apt-get download {}` failed: {}; \
             try `sudo apt-get update` and see that the network is up",
            packages.join(" "),
            last_line(&output.stderr)
        )));
    }
    let files = downloads.path().read_dir()?.filter_map(|entry| Some(entry.ok()?.path()));
    let archives: Vec<_> = files.filter(|path| path.extension().is_some_and(|name| name == "deb")).collect();
    if archives.len() < packages.len() {
        bail!("apt-get download {} left {} .deb files", packages.join(" "), archives.len());
    }
    for archive in archives {
        let output = run(Command::new("dpkg").arg("-x").arg(&archive).arg(into))?;
        if !output.status.success() {
            let name = archive.file_name().unwrap_or_default().to_string_lossy();
            return Err(failure::host(format!("dpkg cannot unpack {name}: {}", last_line(&output.stderr))));
        }
    }
    Ok(())
}

/// `package` and the libraries that it needs directly or by another, from what `apt-cache depends --recurse` says: a line
/// for each package, and below it, indented, one for each dependency.
fn with_libraries(package: &str, said: &[u8]) -> Vec<String> {
    let said = String::from_utf8_lossy(said);
    let mut needs: HashMap<&str, Vec<&str>> = HashMap::new();
    let mut of = "";
    for line in said.lines() {
        if !line.starts_with([' ', '|']) {
            of = line.trim();
        } else if let Some((_, need)) = line.split_once("Depends: ") {
            needs.entry(of).or_default().push(need.trim());
        }
    }
    let mut found = vec![package];
    let mut next = 0;
    while let Some(of) = found.get(next) {
        // Debian's libraries have names that begin so; what else a package needs is of no use to its program alone.
        let libraries =
            needs.get(of).into_iter().flatten().filter(|need| need.starts_with("lib") || **need == "zlib1g");
        let fresh: Vec<&str> = libraries.copied().filter(|need| !found.contains(need)).collect();
        for need in fresh {
            if !found.contains(&need) {
                found.push(need);
            }
        }
        next += 1;
    }
    found.into_iter().map(str::to_owned).collect()
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

/// Whether this is root.
pub fn is_root() -> bool {
    run(Command::new("id").arg("-u")).is_ok_and(|output| output.stdout == b"0\n")
}

/// `program` as root: directly, by a sudo that asks nothing, or not at all.
fn privileged(program: &str) -> Option<Command> {
    if is_root() {
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
