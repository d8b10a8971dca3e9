//! The shared libraries a program needs, as the dynamic linker finds them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::failure;

/// The dynamic linker of x86-64.
pub const LINKER: &str = "ld-linux-x86-64.so.2";

/// The libraries of `program` and its dynamic linker, at the paths the linker looks at.
///
/// # Errors
/// When ldd does not run or a library is not found.
pub fn of(program: &Path) -> Result<Vec<PathBuf>> {
    let output =
        Command::new("ldd").arg(program).env("LC_ALL", "C").stdin(Stdio::null()).output().context("cannot run ldd")?;
    parse(&String::from_utf8_lossy(&output.stdout))
        .map_err(|missing| failure::host(format!("{} needs {missing}, which is not installed", program.display())))
}

/// The same for a program in a tree of unpacked packages, with the libraries of that tree, by its own dynamic linker.
///
/// # Errors
/// When there is no linker, it does not run, or a library is not found.
pub fn in_tree(tree: &Path, program: &Path) -> Result<Vec<PathBuf>> {
    let mut folders = BTreeSet::new();
    shared_objects(tree, &mut folders)?;
    let linker = folders.iter().map(|folder| folder.join(LINKER)).find(|path| path.is_file() && !path.is_symlink());
    let linker = linker.with_context(|| format!("no {LINKER} in {}", tree.display()))?;
    let folders: Vec<_> = folders.iter().map(|folder| folder.to_string_lossy()).collect();
    let mut list = Command::new(&linker);
    list.arg("--library-path").arg(folders.join(":")).arg("--list").arg(program);
    let output = list.env("LC_ALL", "C").stdin(Stdio::null()).output().context("cannot run the dynamic linker")?;
    let mut found = parse(&String::from_utf8_lossy(&output.stdout))
        .map_err(|missing| failure::host(format!("{} needs {missing}", program.display())))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(failure::host(format!("the libraries of {} are not whole: {said}", program.display())));
    }
    found.retain(|path| path.starts_with(tree));
    found.push(linker);
    found.dedup();
    Ok(found)
}

/// Adds the folders below `tree` that have shared objects in them.
fn shared_objects(tree: &Path, folders: &mut BTreeSet<PathBuf>) -> Result<()> {
    for entry in tree.read_dir().with_context(|| format!("cannot read {}", tree.display()))? {
        let path = entry?.path();
        if path.is_dir() && !path.is_symlink() {
            shared_objects(&path, folders)?;
        } else if path.file_name().is_some_and(|name| name.to_string_lossy().contains(".so")) {
            folders.insert(tree.to_path_buf());
        }
    }
    Ok(())
}

/// Reads ldd's output; an error is the name of a library that was not found.
fn parse(text: &str) -> Result<Vec<PathBuf>, String> {
    let mut libraries = Vec::new();
    for line in text.lines().map(str::trim) {
        let (name, path) = line.split_once(" => ").unwrap_or((line, line));
        if path == "not found" {
            return Err(name.to_owned());
        }
        // The vDSO has a name and an address but no path.
        let path = path.split(" (").next().unwrap_or(path);
        if path.starts_with('/') {
            libraries.push(PathBuf::from(path));
        }
    }
    Ok(libraries)
}

#[cfg(test)]
mod tests;
