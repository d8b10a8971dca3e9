//! The stock Debian cloud kernel: the guest of demo and tests, and the kernel of the emulated host. Besides it the generic
//! one, which knows MP tables and the watchdog.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::{Assets, apt, modules};
use crate::failure;

const METAPACKAGE: &str = "linux-image-cloud-amd64";
const GENERIC_METAPACKAGE: &str = "linux-image-amd64";
/// What is kept of the generic kernel's modules: the watchdog's driver, which the cloud kernel lacks.
const GENERIC_MODULES: &[&str] = &["i6300esb"];

/// An unpacked kernel package.
pub struct Kernel {
    /// The bzImage.
    pub image: PathBuf,
    /// Its release, as `uname -r` says in it.
    pub release: String,
    modules: PathBuf,
}

impl Kernel {
    /// The files of the modules called `wanted` with all they depend on, each after what it needs.
    /// A module built into the kernel is left out.
    ///
    /// # Errors
    /// Exit code 4 when this kernel has no such module.
    pub fn modules(&self, wanted: &[&str]) -> Result<Vec<PathBuf>> {
        let read = |name: &str| {
            let path = self.modules.join(name);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let list = modules::Dependencies::parse(&read("modules.dep")?, &read("modules.builtin")?);
        let files = list.resolve(wanted).map_err(|missing| {
            failure::host(format!("kernel {} has no module {missing}: the emulated host needs it", self.release))
        })?;
        Ok(files.into_iter().map(|file| self.modules.join(file)).collect())
    }
}

pub(super) fn find(assets: &Assets, busybox: &Path) -> Result<Kernel> {
    let part = assets.part("kernel", |directory| {
        unpack_kernel(METAPACKAGE, directory)?;
        index_modules(&look(directory)?, directory, busybox)
    })?;
    look(&part).map_err(|error| damaged(&part, &error))
}

/// The generic kernel, and those of its many modules that guests load, in their order.
pub struct Generic {
    /// The bzImage.
    pub image: PathBuf,
    /// The modules' files.
    pub modules: Vec<PathBuf>,
}

pub(super) fn find_generic(assets: &Assets, busybox: &Path) -> Result<Generic> {
    let part = assets.part("generic", |directory| {
        let whole = tempfile::tempdir_in(directory).context("cannot make a temporary directory")?;
        unpack_kernel(GENERIC_METAPACKAGE, whole.path())?;
        let kernel = look(whole.path())?;
        index_modules(&kernel, whole.path(), busybox)?;
        let kept = directory.join("modules");
        fs::create_dir(&kept).context("cannot make a directory")?;
        for (index, module) in kernel.modules(GENERIC_MODULES)?.iter().enumerate() {
            fs::copy(module, kept.join(format!("{index:02}.ko"))).context("cannot copy a module")?;
        }
        fs::rename(whole.path().join("boot"), directory.join("boot")).context("the kernel package has no /boot")
    })?;
    let modules = || -> Result<Vec<PathBuf>> {
        let kept = part.join("modules");
        let entries = kept.read_dir().with_context(|| format!("cannot read {}", kept.display()))?;
        let mut modules: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        modules.sort();
        Ok(modules)
    };
    find_image(&part)
        .and_then(|image| Ok(Generic { image, modules: modules()? }))
        .map_err(|error| damaged(&part, &error))
}

fn damaged(part: &Path, error: &anyhow::Error) -> anyhow::Error {
    failure::host(format!("{error:#}; remove the directory {} and try again", part.display()))
}

fn unpack_kernel(metapackage: &str, directory: &Path) -> Result<()> {
    let depends = apt::depends(metapackage)?;
    let package = depends.iter().find(|name| name.starts_with("linux-image-")).ok_or_else(|| {
        failure::host(format!("{metapackage} depends on no kernel; it depends on {}", depends.join(", ")))
    })?;
    apt::unpack(package, directory)
}

fn find_image(part: &Path) -> Result<PathBuf> {
    let boot = part.join("boot");
    boot.read_dir()
        .with_context(|| format!("cannot read {}", boot.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| release_of(path).is_some())
        .with_context(|| format!("no vmlinuz-* in {}", boot.display()))
}

fn look(part: &Path) -> Result<Kernel> {
    let image = find_image(part)?;
    let release = release_of(&image).unwrap_or_default();
    // Debian 13 has /lib as a link into /usr and packages its files there.
    let modules = ["lib", "usr/lib"].iter().map(|lib| part.join(lib).join("modules").join(&release));
    let modules = modules
        .into_iter()
        .find(|directory| directory.is_dir())
        .with_context(|| format!("no modules of {release} in {}", part.display()))?;
    Ok(Kernel { image, release, modules })
}

fn release_of(image: &Path) -> Option<String> {
    Some(image.file_name()?.to_str()?.strip_prefix("vmlinuz-")?.to_owned())
}

/// Makes `modules.dep`, which comes from depmod at installation and is not in the package. Compressed modules
/// are unpacked first, so that nobody after this has to know of them.
fn index_modules(kernel: &Kernel, root: &Path, busybox: &Path) -> Result<()> {
    unpack_modules(&kernel.modules, busybox)?;
    // busybox looks below BASE/lib/modules only.
    let base = kernel.modules.ancestors().nth(3).unwrap_or(root);
    let status = Command::new(busybox)
        .args(["depmod", "-b"])
        .arg(base)
        .arg(&kernel.release)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .context("cannot run busybox depmod")?;
    if !status.success() || !kernel.modules.join("modules.dep").is_file() {
        bail!("busybox depmod made no modules.dep for kernel {}", kernel.release);
    }
    Ok(())
}

fn unpack_modules(directory: &Path, busybox: &Path) -> Result<()> {
    let mut packed = Vec::new();
    for entry in directory.read_dir().with_context(|| format!("cannot read {}", directory.display()))? {
        let path = entry?.path();
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            unpack_modules(&path, busybox)?;
        } else if path.to_string_lossy().ends_with(".ko.xz") {
            packed.push(path);
        }
    }
    if packed.is_empty() {
        return Ok(());
    }
    let status = Command::new(busybox).arg("unxz").args(&packed).stdin(Stdio::null()).status();
    if !status.context("cannot run busybox unxz")?.success() {
        bail!("cannot decompress the kernel modules in {}", directory.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
