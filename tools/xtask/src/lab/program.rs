//! What a command's first word means: a program of this workspace, a path, or a busybox applet.

use std::path::{Component, Path};

use anyhow::Result;

use super::{Copy, Disk};
use crate::assets::{self, Assets};
use crate::{failure, workspace};

/// A program as the emulated host will find it.
#[derive(Debug, PartialEq)]
pub struct Program {
    /// The first word of the command there.
    pub word: String,
    /// The file to put in; busybox's applets are there already.
    pub file: Option<Copy>,
}

/// Finds what `word` means, building it when it is a program of this workspace.
///
/// # Errors
/// Exit code 2 when it means nothing; 1 when it does not build.
pub fn find(word: &str) -> Result<Program> {
    if word.contains('/') {
        // A path that is not here may still be there.
        let host = Path::new(word);
        let file =
            if host.is_file() { Some(Copy { host: host.to_path_buf(), guest: guest_path(word)? }) } else { None };
        return Ok(Program { word: word.to_owned(), file });
    }
    if let Some(package) = workspace::package_of_program(word)? {
        let host = workspace::build_program(&package, word)?;
        return Ok(Program { word: word.to_owned(), file: Some(Copy { host, guest: format!("/bin/{word}") }) });
    }
    let busybox = Assets::open()?.busybox()?;
    if word == "busybox" || assets::applets(&busybox)?.iter().any(|applet| applet == word) {
        return Ok(Program { word: word.to_owned(), file: None });
    }
    Err(failure::usage(format!("{word} is no program of this workspace, no busybox applet, and no path")))
}

/// Reads `HOST[:GUEST]`. Without GUEST the file gets the same path in the emulated host, where commands run in `/`.
///
/// # Errors
/// Exit code 2 when there is no such file, or a path needs a GUEST.
pub fn parse_file(text: &str) -> Result<Copy> {
    let (host, guest) = match text.rsplit_once(':') {
        Some((host, guest)) => (host, guest.to_owned()),
        None => (text, guest_path(text)?),
    };
    if !guest.contains(|c| c != '/') {
        return Err(failure::usage(format!("--file {text}: no path in the emulated host")));
    }
    if !Path::new(host).is_file() {
        return Err(failure::usage(format!("--file {text}: {host} is no file")));
    }
    Ok(Copy { host: host.into(), guest })
}

/// Reads `GUEST:HOST`.
///
/// # Errors
/// Exit code 2 when it is not of that form.
pub fn parse_copy_out(text: &str) -> Result<Copy> {
    match text.split_once(':') {
        Some((guest, host)) if !guest.is_empty() && !host.is_empty() && !guest.contains('\n') => {
            Ok(Copy { host: host.into(), guest: guest.to_owned() })
        }
        _ => Err(failure::usage(format!("--copy-out {text}: expected GUEST:HOST"))),
    }
}

/// The disk with this image.
///
/// # Errors
/// Exit code 2 when there is no such file.
pub fn find_disk(image: &Path) -> Result<Disk> {
    if !image.is_file() {
        return Err(failure::usage(format!("--disk {}: no such file", image.display())));
    }
    Ok(Disk { image: image.to_path_buf(), kept: true })
}

/// Reads `NAME=VALUE`.
///
/// # Errors
/// Exit code 2 when it is not of that form, or NAME cannot be a variable's name.
pub fn parse_variable(text: &str) -> Result<(String, String)> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let good = name.chars().all(word) && name.chars().next().is_some_and(|c| !c.is_ascii_digit());
    if !good || !text.contains('=') {
        return Err(failure::usage(format!("--env {text}: expected NAME=VALUE")));
    }
    Ok((name.to_owned(), value.to_owned()))
}

fn guest_path(path: &str) -> Result<String> {
    if Path::new(path).components().any(|part| part == Component::ParentDir) {
        return Err(failure::usage(format!("{path}: give a path in the emulated host as well ({path}:/PATH)")));
    }
    Ok(path.trim_start_matches("./").to_owned())
}

#[cfg(test)]
mod tests;
