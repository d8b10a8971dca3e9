//! The Debian package.
//!
//! Follows the Debian Policy Manual, "Control files and their fields" and "Files"; built by dpkg-deb, which every Debian has.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::{Dist, names};
use crate::{failure, workspace};

/// Where Debian's shells look for the completions of a package: generated name, folder, name there.
pub const COMPLETIONS: [(&str, &str); 3] = [
    ("tophalf.bash", "usr/share/bash-completion/completions/tophalf"),
    ("_tophalf", "usr/share/zsh/vendor-completions/_tophalf"),
    ("tophalf.fish", "usr/share/fish/vendor_completions.d/tophalf.fish"),
];

/// Builds the package in `folder`; gives its path.
///
/// # Errors
/// Exit code 4 without dpkg-deb; else when something cannot be written.
pub fn build(dist: &Dist, folder: &Path) -> Result<PathBuf> {
    let stage = tempfile::tempdir_in(folder).context("no temporary directory")?;
    let root = Root(stage.path().join("root"));
    root.copy(&dist.program, "usr/bin/tophalf", 0o755)?;
    for (generated, place) in COMPLETIONS {
        root.copy(&dist.completions.join(generated), place, 0o644)?;
    }
    for page in names(&dist.man)? {
        let packed = gzip(&dist.man.join(&page))?;
        root.write(&format!("usr/share/man/man1/{page}.gz"), &packed, 0o644)?;
    }
    root.copy(&workspace::root().join("README.md"), "usr/share/doc/tophalf/README.md", 0o644)?;
    root.copy(&workspace::root().join("LICENSE"), "usr/share/doc/tophalf/copyright", 0o644)?;
    let version = version(&dist.program)?;
    let kib = size(&root.0)?.div_ceil(1024);
    root.write("DEBIAN/control", control(&version, kib).as_bytes(), 0o644)?;

    let package = folder.join(format!("tophalf_{version}_amd64.deb"));
    let output = Command::new("dpkg-deb")
        .args(["--root-owner-group", "--build"])
        .args([&root.0, &package])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failure::host(format!("no dpkg-deb ({error}); install the package dpkg")))?;
    if !output.status.success() {
        return Err(failure::host(format!("dpkg-deb: {}", String::from_utf8_lossy(&output.stderr).trim())));
    }
    Ok(package)
}

fn control(version: &str, kib: u64) -> String {
    format!(
        "Package: tophalf\n\
         Version: {version}\n\
         Architecture: amd64\n\
         Maintainer: Tophalf developers <tophalf@localhost>\n\
         Installed-Size: {kib}\n\
         Recommends: busybox-static\n\
         Section: admin\n\
         Priority: optional\n\
         Description: KVM virtual machine monitor with user-space interrupt controllers\n \
         Boots Linux on KVM with PIC, I/O APIC and local APICs in user space, or with\n \
         those of KVM to compare. The program is static and needs only /dev/kvm.\n"
    )
}

/// What the program says it is.
fn version(program: &Path) -> Result<String> {
    let output = Command::new(program).arg("--version").output().context("cannot run the program")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().nth(1).map(str::to_owned).context("the program does not know its version")
}

fn gzip(path: &Path) -> Result<Vec<u8>> {
    // Without name and time, so that the same input gives the same package.
    let output = Command::new("gzip").args(["-9nc"]).arg(path).output().context("cannot run gzip")?;
    Ok(output.stdout)
}

fn size(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for name in names(folder)? {
        let path = folder.join(name);
        bytes += if path.is_dir() { size(&path)? } else { fs::metadata(&path).context("just written")?.len() };
    }
    Ok(bytes)
}

/// The package's files before they are packed.
struct Root(PathBuf);

impl Root {
    fn copy(&self, from: &Path, place: &str, mode: u32) -> Result<()> {
        let contents = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.write(place, &contents, mode)
    }

    /// Writes a file; folders and file get these modes whatever the umask is.
    fn write(&self, place: &str, contents: &[u8], mode: u32) -> Result<()> {
        let path = self.0.join(place);
        let write = || -> std::io::Result<()> {
            fs::create_dir_all(path.parent().unwrap_or(&self.0))?;
            for folder in path.ancestors().skip(1).take_while(|folder| folder.starts_with(&self.0)) {
                fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
            }
            fs::write(&path, contents)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }
}

#[cfg(test)]
mod tests;
