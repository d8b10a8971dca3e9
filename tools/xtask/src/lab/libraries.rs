//! The shared libraries a program needs, as the dynamic linker finds them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::failure;

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
