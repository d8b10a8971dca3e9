//! The Debian package in a fresh Debian: installed and run in a tree that debootstrap makes.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::{Dist, deb};
use crate::assets::Assets;
use crate::failure;

/// Installs the package in a copy of the tree and tries what it brings; gives what was tried, and whether it went well.
///
/// # Errors
/// Exit code 4 when there is no debootstrap, no root, or no network.
pub fn check(dist: &Dist) -> Result<Vec<(String, bool)>> {
    let archive = Assets::open()?.debian_tree()?;
    let folder = tempfile::tempdir().context("no temporary directory")?;
    let root = folder.path().join("root");
    fs::create_dir(&root).context("no temporary directory")?;
    let unpacked = run(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&root))?;
    if !unpacked.0 {
        return Err(failure::host(format!("cannot unpack {}: {}", archive.display(), unpacked.1)));
    }
    fs::copy(&dist.package, root.join("tophalf.deb")).context("cannot put the package into the tree")?;
    let tree = Tree(root);
    let mut checks = vec![
        tree.check("dpkg installs the package", &["dpkg", "-i", "/tophalf.deb"], "Setting up tophalf"),
        tree.check("the program runs", &["tophalf", "--version"], "tophalf "),
        tree.check("the program helps", &["tophalf", "run", "--help"], "--no-reboot"),
        // There is no /dev/kvm in the tree.
        tree.check("doctor says what is missing", &["sh", "-c", "tophalf doctor; test $? = 4"], "/dev/kvm"),
        tree.check("bash reads its completion", &["bash", "-n", "/usr/share/bash-completion/completions/tophalf"], ""),
    ];
    for page in ["tophalf", "tophalf-run", "tophalf-doctor"] {
        let words = &format!("/usr/share/man/man1/{page}.1.gz");
        checks.push(tree.check(&format!("man finds {page}"), &["man", "-w", page], words));
        checks.push(tree.check(&format!("man shows {page}"), &["man", "--warnings", page], "SYNOPSIS"));
    }
    for (_, place) in deb::COMPLETIONS {
        checks.push((format!("{place} is there"), tree.0.join(place).is_file()));
    }
    checks.push(tree.check("dpkg takes it away again", &["dpkg", "-P", "tophalf"], "Removing tophalf"));
    checks.push(("nothing is left of it".to_owned(), !tree.0.join("usr/bin/tophalf").exists()));
    Ok(checks)
}

struct Tree(PathBuf);

impl Tree {
    /// Whether the command succeeds in the tree and says `words`. What it says is shown when not.
    fn check(&self, what: &str, command: &[&str], words: &str) -> (String, bool) {
        let outcome = run(Command::new("chroot")
            .arg(&self.0)
            .args(command)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("MANPAGER", "cat")
            .env_remove("MANPATH"));
        let (good, said) = match outcome {
            Ok((success, text)) => (success && text.contains(words), text),
            Err(error) => (false, format!("{error:#}")),
        };
        (if good { what.to_owned() } else { format!("{what}: {}", said.trim()) }, good)
    }
}

/// Runs a command; whether it succeeded, and what it said on both streams.
fn run(command: &mut Command) -> Result<(bool, String)> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .env("LC_ALL", "C")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {name}"))?;
    Ok((output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()))
}
