//! `tophalf generate`, hidden: shell completions and man pages, for `cargo xtask dist`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Command};
use clap_complete::Shell;

use super::outcome;

/// What `tophalf generate` takes.
#[derive(Debug, Args)]
pub struct GenerateArguments {
    /// Where to put the folders `completions` and `man`
    folder: PathBuf,
}

/// Writes what `program`, the whole command line, says about itself.
pub fn generate(arguments: &GenerateArguments, program: Command) -> ExitCode {
    match write(&arguments.folder, program) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => outcome::of_error(&vmm::Error::host(&format!("cannot write to {}", arguments.folder.display()), e)),
    }
}

fn write(folder: &Path, mut program: Command) -> io::Result<()> {
    let name = program.get_name().to_owned();
    let (completions, man) = (folder.join("completions"), folder.join("man"));
    fs::create_dir_all(&completions)?;
    fs::create_dir_all(&man)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut program, &name, &completions)?;
    }
    clap_mangen::generate_to(program.disable_help_subcommand(true), &man)
}
