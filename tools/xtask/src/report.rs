//! Reads what `assets/guest-init.sh` prints: sections between marker lines.

use std::collections::{BTreeMap, BTreeSet};

/// What a guest reported.
#[derive(Debug, Default)]
pub struct Report {
    sections: BTreeMap<String, String>,
    /// Whether the guest reached the end of its report.
    pub done: bool,
}

impl Report {
    /// Finds the sections in a console's output; other lines and carriage returns are passed over. A section that
    /// did not end is left out.
    pub fn parse(console: &str) -> Self {
        let mut report = Self::default();
        let mut open: Option<(String, String)> = None;
        for line in console.lines().map(|line| line.trim_end_matches('\r')) {
            let mark = line.strip_prefix("@@TOPHALF-").and_then(|mark| mark.strip_suffix("@@"));
            match mark.map(|mark| mark.split_once(' ').unwrap_or((mark, ""))) {
                Some(("BEGIN", name)) => open = Some((name.to_owned(), String::new())),
                Some(("END", name)) => {
                    if let Some((_, text)) = open.take().filter(|(begun, _)| begun == name) {
                        report.sections.insert(name.to_owned(), text);
                    }
                }
                Some(("DONE", "")) => report.done = true,
                _ => {
                    if let Some((_, text)) = &mut open {
                        text.push_str(line);
                        text.push('\n');
                    }
                }
            }
        }
        report
    }

    /// A section's text, if the guest printed it.
    pub fn section(&self, name: &str) -> Option<&str> {
        self.sections.get(name).map(String::as_str)
    }

    /// The first line of a section.
    pub fn first_line(&self, name: &str) -> Option<&str> {
        self.section(name)?.lines().next().map(str::trim)
    }

    /// The interrupt controllers that /proc/interrupts names.
    pub fn chips(&self) -> BTreeSet<&str> {
        let mut lines = self.section("interrupts").unwrap_or_default().lines();
        let cpus = lines.next().unwrap_or_default().split_whitespace().filter(|word| word.starts_with("CPU")).count();
        lines
            .filter_map(|line| {
                let (number, rest) = line.split_once(':')?;
                number.trim().parse::<u32>().ok()?;
                rest.split_whitespace().nth(cpus)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
