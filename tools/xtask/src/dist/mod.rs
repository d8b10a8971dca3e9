//! `cargo xtask dist`: what is given to users. A static program, shell completions, man pages, and a Debian package of all that.

mod deb;
mod tree;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{assets, workspace};

pub use tree::check;

/// Make the static program, shell completions, man pages and the Debian package, under target/dist.
#[derive(Args)]
pub struct Options {}

/// What was made.
pub struct Dist {
    /// The program.
    pub program: PathBuf,
    /// Folder of completions, one file a shell.
    pub completions: PathBuf,
    /// Folder of man pages, all of section 1.
    pub man: PathBuf,
    /// The Debian package.
    pub package: PathBuf,
}

/// Makes everything and says where it is.
///
/// # Errors
/// When something does not build or cannot be written.
pub fn main(_: &Options) -> Result<u8> {
    let dist = make()?;
    for path in [&dist.program, &dist.completions, &dist.man, &dist.package] {
        println!("{}", path.display());
    }
    Ok(0)
}

/// Makes everything anew.
///
/// # Errors
/// When something does not build or cannot be written.
pub fn make() -> Result<Dist> {
    let folder = workspace::target().join("dist");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let program = folder.join("tophalf");
    fs::copy(workspace::build_program("tophalf", "tophalf")?, &program)
        .with_context(|| format!("cannot make {}", program.display()))?;
    let contents = fs::read(&program).context("cannot read the program")?;
    if !assets::is_static(&contents) {
        bail!("{} needs shared libraries", program.display());
    }
    let status = Command::new(&program).arg("generate").arg(&folder).status().context("cannot run the program")?;
    if !status.success() {
        bail!("the program cannot write its completions and man pages");
    }
    let mut dist = Dist { program, completions: folder.join("completions"), man: folder.join("man"), package: folder };
    dist.package = deb::build(&dist, &dist.package)?;
    Ok(dist)
}

/// The names in a folder, sorted.
fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}
