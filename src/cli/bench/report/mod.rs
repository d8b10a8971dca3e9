//! The report: one page that needs nothing else, neither network nor script.
//!
//! It is well-formed XML, too, so that tests (and readers) can take it apart. Text from files is escaped by the template.

mod plots;
mod tables;

use std::path::Path;

use maud::{Markup, PreEscaped, html};
use vmm::Error;

use self::plots::{distribution, outliers, ratios, stages};
use super::against;
use super::results::{Fingerprint, Results, Run, Table};
use super::view::{self, Kind, Setting, Sheet};

#[cfg(test)]
mod tests;

/// The page's name in its folder.
const PAGE: &str = "index.html";
const STYLE: &str = include_str!("style.css");

/// Writes the page into a folder, which is made if it is not there; and beside it the plots of ratios, to be shown elsewhere:
/// `ratios.svg`, from the second on `ratios-2.svg`.
pub fn write(folder: &Path, results: &Results) -> Result<(), Error> {
    let page = page(results)?;
    let pictures = pictures(results)?.into_iter().enumerate().map(|(n, picture)| match n {
        0 => ("ratios.svg".to_owned(), picture),
        n => (format!("ratios-{}.svg", n + 1), picture),
    });
    for (name, content) in [(PAGE.to_owned(), page)].into_iter().chain(pictures) {
        let path = folder.join(name);
        std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(&path, content))
            .map_err(|e| Error::Usage(format!("{} can't be written: {e}; give another folder", path.display())))?;
    }
    Ok(())
}

/// The plots of ratios, of each host and table that has them.
fn pictures(results: &Results) -> Result<Vec<String>, Error> {
    let settings = view::rated(results)?;
    let sheets = settings.iter().flat_map(|setting| &setting.tables);
    Ok(sheets.filter_map(|sheet| ratios::picture(sheet, STYLE)).collect())
}

/// The page.
pub fn page(results: &Results) -> Result<String, Error> {
    let settings = view::rated(results)?;
    let body = html! {
        header {
            h1 { "Interrupt latency" }
            p { "Measured by " code { "tophalf bench" } ". All durations are wall-clock; lower is better." }
        }
        @if settings.len() > 1 {
            nav aria-label="Hosts" { ol {
                @for (index, setting) in settings.iter().enumerate() {
                    li { a href={ "#s" (index) } { (setting.title()) } }
                }
            } }
        }
        main {
            @if settings.is_empty() { p { "There is no run in this file." } }
            @for (index, setting) in settings.iter().enumerate() { (of_setting(&format!("s{index}"), setting)) }
        }
        footer { (how_to_read()) }
    };
    let page = html! {
        (PreEscaped("<!DOCTYPE html>\n"))
        html lang="en" {
            head {
                (PreEscaped("<meta charset=\"utf-8\"/><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>"))
                title { "Interrupt latency" }
                style { (PreEscaped(STYLE)) }
            }
            body { (body) }
        }
    };
    // What neither HTML nor XML may hold, wherever in a file it was.
    let page = page.into_string();
    Ok(page.chars().filter(|c| *c == '\n' || !c.is_control() && !matches!(*c, '\u{fffe}' | '\u{ffff}')).collect())
}

fn of_setting(id: &str, setting: &Setting<'_>) -> Markup {
    html! {
        section.setting id=(id) {
            h2 { (setting.title()) }
            (facts(setting))
            @for warning in warnings(&setting.runs) { p.warning { strong { "Distorted: " } (warning) } }
            @for run in &setting.runs {
                @if let Some(version) = &run.qemu { p { "The modes qemu-… are those of QEMU " (version) "." } }
                @for line in against::lines(run) { p.against { (line) } }
            }
            @for (index, sheet) in setting.tables.iter().enumerate() { (of_sheet(&format!("{id}t{index}"), sheet)) }
            h3 { "When the slowest samples were" }
            p { "The slowest samples of each kind and mode. A disturbance of the host shows as a cluster that does not keep to one mode." }
            @for (index, run) in setting.runs.iter().enumerate() { (outliers::plot(&format!("{id}o{index}"), run)) }
        }
    }
}

fn of_sheet(id: &str, sheet: &Sheet<'_>) -> Markup {
    let (title, about) = match sheet.table {
        Table::Best => ("Each mode at its best", "Each guest was offered all that its mode can do."),
        Table::SameCpuid => {
            ("The same CPUID for all modes", "All guests saw the same processor, so the modes did the same work.")
        }
        Table::Traced => (
            "Each mode at its best, traced",
            "The life-cycle trace was written to a file meanwhile; the ratios are those to the same mode without it.",
        ),
    };
    html! {
        section.sheet id=(id) {
            h3 { (title) }
            p { (about) " " (verdict(sheet)) }
            (ratios::plot(&format!("{id}r"), sheet))
            (tables::latencies(sheet))
            div.kinds {
                @for (index, kind) in sheet.kinds.iter().enumerate() { (of_kind(&format!("{id}k{index}"), kind)) }
            }
        }
    }
}

fn of_kind(id: &str, kind: &Kind<'_>) -> Markup {
    html! {
        article.kind id=(id) {
            h4 { code { (kind.name) } }
            p { (kind.what) }
            (distribution::plot(&format!("{id}d"), kind))
            (stages::plot(&format!("{id}s"), kind))
        }
    }
}

/// In how many kinds `user` is faster, and in how many slower, by intervals that do not hold 1.
fn verdict(sheet: &Sheet<'_>) -> String {
    let medians: Vec<_> =
        sheet.kinds.iter().filter_map(|kind| kind.cell("user")?.ratio).map(|ratio| ratio.p50).collect();
    if medians.is_empty() {
        return String::new();
    }
    let faster = medians.iter().filter(|p50| p50.high < 1.0).count();
    let slower = medians.iter().filter(|p50| p50.low > 1.0).count();
    format!(
        "Against {}, the median of user is lower in {faster} of {} kinds and higher in {slower}; in {} the interval holds 1.",
        sheet.table.reference_name(),
        medians.len(),
        medians.len() - faster - slower
    )
}

fn facts(setting: &Setting<'_>) -> Markup {
    let Fingerprint { kvm_parameters, governor, .. } = setting.fingerprint;
    let overheads: Vec<String> = setting.runs.iter().map(|run| format!("{:.0} ns", run.overhead_ns)).collect();
    html! {
        dl.facts {
            dt { "Frequency governor" } dd { (governor.as_deref().unwrap_or("none")) }
            @if !kvm_parameters.is_empty() {
                dt { "KVM parameters" }
                dd { @for (name, value) in kvm_parameters { code { (name) "=" (value) } " " } }
            }
            dt { "Program" } dd { "tophalf " (setting.tophalf) }
            dt { "Reading the clocks costs" } dd { (overheads.join(", ")) " in every sample, not subtracted" }
            @for run in &setting.runs {
                dt { "Command" }
                dd { code { (shell(&run.command)) } ", " (utc(run.started)) ", seed " (run.seed) }
            }
        }
    }
}

fn warnings<'a>(runs: &[&'a Run]) -> Vec<&'a str> {
    let mut warnings: Vec<&str> = Vec::new();
    for warning in runs.iter().flat_map(|run| &run.warnings) {
        if !warnings.contains(&warning.as_str()) {
            warnings.push(warning);
        }
    }
    warnings
}

fn how_to_read() -> Markup {
    html! {
        h2 { "How to read this" }
        ul {
            li { strong { "user" } ": the interrupt controllers are Tophalf's. " strong { "split" } ": KVM has the local APICs. "
                strong { "kernel" } ": KVM has all of them. " strong { "qemu-…" } ": QEMU, with the kernel-irqchip setting that follows." }
            li { "A " strong { "ratio" } " is a percentile divided by that of its reference in the same rounds; its interval is a "
                "95% bootstrap over rounds, both modes' neighbouring rounds drawn together. With fewer than six rounds it is narrower than that." }
            li { "Rounds of the modes took turns, so that drift of the machine hits all alike. Latencies of devices, MSIs and timers count from the intended time." }
            li { strong { "Distributions" } " show the latency (log axis) that a share of samples did not exceed; each step to the right is ten times rarer." }
            li { strong { "Stages" } " are medians of each part; medians need not add up to the median of the whole, which the line marks. Where stages happen inside KVM nobody can see them." }
        }
    }
}

/// A command line that can be pasted.
fn shell(command: &[String]) -> String {
    let plain =
        |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./,=:+@%".contains(&b));
    let quoted = |word: &String| if plain(word) { word.clone() } else { format!("'{}'", word.replace('\'', r"'\''")) };
    command.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

/// A date, from seconds since 1970: the civil calendar by eras of 400 years that begin in March.
fn utc(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (year, month) = (era * 400 + year_of_era + u64::from(month >= 10), (month + 2) % 12 + 1);
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", rest / 3600, rest / 60 % 60)
}
