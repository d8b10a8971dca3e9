//! A disk image for guests: an ext4 file system with Debian's fio, the libraries that it needs, and busybox. A guest of
//! [`super::guest`] has its root there when its command line says so (`th.root`).
//!
//! The packages are fetched once. The file system is made anew each time, which takes a second, since what is ours in it changes.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::{Assets, apt, busybox};
use crate::{failure, lab};

/// What is fetched from Debian.
const PACKAGE: &str = "fio";
const PROGRAM: &str = "usr/bin/fio";
/// Room for what guests write besides.
const SIZE: &str = "224M";

pub(super) fn image(assets: &Assets) -> Result<PathBuf> {
    let mke2fs = assets.mke2fs()?;
    let program = assets.part(PACKAGE, fetch)?;
    let temporary = tempfile::tempdir_in(&assets.directory).context("cannot make a temporary directory")?;
    let (tree, image) = (temporary.path().join("tree"), temporary.path().join("image"));
    fill(assets, &program, &tree).with_context(|| format!("cannot make {}", tree.display()))?;
    let mut command = Command::new(mke2fs);
    command.args(["-q", "-F", "-t", "ext4", "-E", "root_owner=0:0", "-d"]).arg(&tree).arg(&image).arg(SIZE);
    let output = command.env("LC_ALL", "C").stdin(Stdio::null()).output().context("cannot run mke2fs")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
        return Err(failure::host(format!("mke2fs cannot make a disk image: {said}; see that there is space")));
    }
    let path = assets.directory.join("disk.ext4");
    // Whoever uses the old one keeps it.
    fs::rename(&image, &path).with_context(|| format!("cannot make {}", path.display()))?;
    Ok(path)
}

/// The program and its libraries, at their places below `into`.
fn fetch(into: &Path) -> Result<()> {
    let whole = tempfile::tempdir_in(into).context("cannot make a temporary directory")?;
    apt::unpack_with_libraries(PACKAGE, whole.path())?;
    let program = whole.path().join(PROGRAM);
    let mut files = lab::libraries_in_tree(whole.path(), &program)?;
    files.push(program);
    for file in files {
        let place = file.strip_prefix(whole.path()).context("a library is outside of its package")?;
        // Debian 12's packages still have /lib apart from /usr; the image has not. Programs look for the linker here.
        let place = if file.ends_with(lab::LINKER) {
            Path::new("lib64").join(lab::LINKER)
        } else {
            place.strip_prefix("usr").unwrap_or(place).to_path_buf()
        };
        let place = into.join("usr").join(place);
        fs::create_dir_all(place.parent().unwrap_or(into)).context("cannot make a directory")?;
        fs::copy(&file, &place).with_context(|| format!("cannot copy {}", file.display()))?;
    }
    Ok(())
}

/// The tree that becomes the file system.
fn fill(assets: &Assets, program: &Path, tree: &Path) -> Result<()> {
    for directory in ["dev", "proc", "sys", "tmp", "root", "data", "usr/bin", "usr/sbin", "usr/lib", "usr/lib64"] {
        fs::create_dir_all(tree.join(directory))?;
    }
    for directory in ["bin", "sbin", "lib", "lib64"] {
        symlink(Path::new("usr").join(directory), tree.join(directory))?;
    }
    copy_tree(&program.join("usr"), &tree.join("usr"))?;
    let shell = assets.busybox()?;
    fs::copy(&shell, tree.join("bin/busybox"))?;
    for applet in busybox::applets(&shell)?.iter().filter(|applet| *applet != "busybox") {
        symlink("busybox", tree.join("bin").join(applet))?;
    }
    for (path, text) in
        [("sbin/init", &include_bytes!("guest-init.sh")[..]), ("load.sh", include_bytes!("guest-load.sh"))]
    {
        let path = tree.join(path);
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in from.read_dir()? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}
