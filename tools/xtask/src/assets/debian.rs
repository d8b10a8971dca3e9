//! A fresh Debian as a tree of files, made by debootstrap and kept as an archive.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::{Assets, apt};
use crate::failure;

const SUITE: &str = "bookworm";
/// Beside the essential packages.
const PACKAGES: &str = "man-db";
const ARCHIVE: &str = "tree.tar";

pub(super) fn find(assets: &Assets) -> Result<PathBuf> {
    if !apt::is_root() {
        return Err(failure::host("a Debian tree can be made and entered by root only; run this as root".to_owned()));
    }
    Ok(assets.part("debian", make)?.join(ARCHIVE))
}

fn make(folder: &Path) -> Result<()> {
    let root = tempfile::tempdir_in(folder).context("no temporary directory")?;
    let debootstrap = || {
        let mut command = Command::new("debootstrap");
        command.args(["--variant=minbase", &format!("--include={PACKAGES}"), SUITE]).arg(root.path());
        // It is in sbin, and so is what it uses.
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/local/sbin:/usr/sbin:/sbin";
        command.env("PATH", path).env("LC_ALL", "C").stdin(Stdio::null());
        command
    };
    if debootstrap().arg("--version").output().is_err() {
        apt::install("debootstrap")?;
    }
    eprintln!("xtask: making a Debian tree with debootstrap");
    let output = debootstrap().output().context("cannot run debootstrap")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let last = said.lines().rfind(|line| !line.is_empty()).unwrap_or_default().to_owned();
        return Err(failure::host(format!("debootstrap failed: {last}; see that the network is up")));
    }
    let archive = File::create(folder.join(ARCHIVE)).context("cannot write the Debian tree")?;
    let tar = Command::new("tar").arg("-C").arg(root.path()).args(["-cf", "-", "."]).stdout(archive).status();
    if !tar.context("cannot run tar")?.success() {
        return Err(failure::host("tar cannot pack the Debian tree; see that there is space".to_owned()));
    }
    Ok(())
}
