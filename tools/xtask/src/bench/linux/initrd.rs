//! The guest's initramfs: that of the tests, and the two programs with their libraries behind it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Options;
use crate::assets::Assets;
use crate::cpio::Archive;
use crate::lab;

/// What the guest runs. The histogram's rows are micro-seconds and how many wake-ups were so late; perf prints seconds.
const SCRIPT: &str = r#"export PATH=/bin:/usr/bin
cyclictest -q -m -p 80 -t 1 -i INTERVAL -l SAMPLES -h 200000 2>/dev/null |
    awk '$1 ~ /^[0-9]+$/ && $2 > 0 { print "@@wakeup", $1 + 0, $2 + 0 }'
echo "@@pipe TRIPS $(perf bench -f simple sched pipe -l TRIPS)"
"#;

/// Makes it.
///
/// # Errors
/// Exit code 4 when a program is missing and can't be had.
pub fn make(assets: &Assets, options: &Options) -> Result<PathBuf> {
    let programs = assets.latency_programs()?;
    let mut archive = Archive::new();
    let numbers = [("INTERVAL", options.interval), ("SAMPLES", options.samples), ("TRIPS", options.round_trips)];
    let script = numbers.iter().fold(SCRIPT.to_owned(), |script, (name, n)| script.replace(name, &n.to_string()));
    archive.file("bench.sh", 0o755, script.as_bytes());
    let mut libraries = BTreeSet::new();
    for (name, path) in &programs {
        archive.file(&format!("usr/bin/{name}"), 0o755, &read(path)?);
        libraries.extend(lab::libraries(path)?);
    }
    for library in &libraries {
        archive.file(&library.to_string_lossy(), 0o755, &read(library)?);
    }
    let mut whole = read(&assets.guest_initrd()?)?;
    whole.extend(archive.finish());
    assets.file("bench-initrd.cpio", &whole)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
