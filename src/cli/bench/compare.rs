//! `tophalf bench compare`: what has changed between two result files, and whether that is within budgets.

use std::fmt::Write as _;

use vmm::Error;

use super::budget::Budget;
use super::results::{Interval, Results, Summary, Table};
use super::statistics;
use super::units::{duration, times};
use super::view::{self, Cell, Setting, Sheet};

#[cfg(test)]
mod tests;

/// What a comparison says.
#[derive(Debug)]
pub struct Comparison {
    /// For people.
    pub text: String,
    /// No budget was exceeded.
    pub met: bool,
}

/// A row of the new file and the one it is compared with.
struct Pair<'a> {
    table: Table,
    kind: &'a str,
    mode: &'a str,
    old: Option<&'a Cell<'a>>,
    new: &'a Cell<'a>,
}

/// Compares settings (host, vCPUs) that both files have. Where a file has one in several versions of the program, its last one
/// counts. Two files of one host each are compared even if the hosts differ, and it is said in what.
pub fn compare(old: &Results, new: &Results, budgets: &[Budget]) -> Result<Comparison, Error> {
    let (old, new) = (view::settings(old)?, view::settings(new)?);
    let matched = matched(&old, &new)?;
    check_names(budgets, &matched)?;
    let mut comparison = Comparison { text: String::new(), met: true };
    for (old, new) in matched {
        let _ = writeln!(comparison.text, "{}\n", plain(&new.title()));
        if let Some(differs) = differences(old, new) {
            let _ = writeln!(comparison.text, "The hosts differ in {}: the changes may be theirs.\n", plain(&differs));
        }
        let pairs = pairs(old, new);
        comparison.text += &table(&pairs, new);
        for budget in budgets {
            judge(budget, &pairs, &mut comparison)?;
        }
    }
    Ok(comparison)
}

fn matched<'a>(
    old: &'a [Setting<'a>],
    new: &'a [Setting<'a>],
) -> Result<Vec<(&'a Setting<'a>, &'a Setting<'a>)>, Error> {
    let last = |settings: &'a [Setting<'a>], like: &Setting<'_>, any_host: bool| {
        settings.iter().rfind(|s| s.cpus == like.cpus && (any_host || s.fingerprint == like.fingerprint))
    };
    let one_host = |settings: &[Setting<'_>]| settings.iter().all(|s| s.fingerprint == settings[0].fingerprint);
    let any_host = one_host(old) && one_host(new);
    let mut matched = Vec::new();
    for setting in new {
        let is_last = last(new, setting, false).is_some_and(|last| std::ptr::eq(last, setting));
        if let Some(old) = last(old, setting, any_host).filter(|_| is_last) {
            matched.push((old, setting));
        }
    }
    if matched.is_empty() {
        return Err(Error::Usage(
            "the two files have nothing to compare: no host with the same number of vCPUs is in both; measure both on one host".to_owned(),
        ));
    }
    Ok(matched)
}

fn check_names(budgets: &[Budget], matched: &[(&Setting<'_>, &Setting<'_>)]) -> Result<(), Error> {
    let settings = || matched.iter().flat_map(|(old, new)| [*old, *new]);
    let mut kinds: Vec<&str> =
        settings().flat_map(|s| &s.tables).flat_map(|t| &t.kinds).map(|kind| kind.name).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let mut modes: Vec<&str> = settings().flat_map(Setting::modes).collect();
    modes.sort_unstable();
    modes.dedup();
    budgets.iter().try_for_each(|budget| budget.check_names(&kinds, &modes))
}

fn differences(old: &Setting<'_>, new: &Setting<'_>) -> Option<String> {
    let (a, b) = (old.fingerprint, new.fingerprint);
    let fields = [
        ("processor", a.cpu != b.cpu),
        ("number of processors", a.cpus != b.cpus),
        ("kernel", a.kernel != b.kernel),
        ("KVM", a.kvm != b.kvm),
        ("nesting", a.nested != b.nested),
        ("KVM's parameters", a.kvm_parameters != b.kvm_parameters),
        ("governor", a.governor != b.governor),
    ];
    let names: Vec<&str> = fields.iter().filter(|(_, differs)| *differs).map(|(name, _)| *name).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

fn pairs<'a>(old: &'a Setting<'a>, new: &'a Setting<'a>) -> Vec<Pair<'a>> {
    let before = |sheet: &Sheet<'_>, kind: &str, mode: &str| {
        let sheet = old.tables.iter().find(|other| other.table == sheet.table)?;
        sheet.kinds.iter().find(|other| other.name == kind)?.cell(mode)
    };
    let mut pairs = Vec::new();
    for sheet in &new.tables {
        for kind in &sheet.kinds {
            for cell in &kind.cells {
                let old = before(sheet, kind.name, cell.mode).filter(|old| old.summary.count > 0);
                pairs.push(Pair { table: sheet.table, kind: kind.name, mode: cell.mode, old, new: cell });
            }
        }
    }
    pairs
}

/// The table of changes.
fn table(pairs: &[Pair<'_>], new: &Setting<'_>) -> String {
    let seed = new.runs.first().map_or(0, |run| run.seed);
    let mut text = format!(
        "{:<10} {:<18} {:<10} {:>9} {:>9}  {:<23} {:>9} {:>9}  change (95%)\n",
        "CPUID", "kind", "mode", "p50 old", "new", "change (95%)", "p99 old", "new"
    );
    for Pair { table, kind, mode, old, new } in pairs {
        let _ = write!(text, "{:<10} {kind:<18} {mode:<10} ", table_name(*table));
        if new.summary.count == 0 {
            let why = new.row.missing.as_deref().unwrap_or("no samples");
            let _ = writeln!(text, "not measured: {}", plain(why));
            continue;
        }
        let change = old.and_then(|old| statistics::change(&new.rounds, &old.rounds, seed));
        let column = |figure: fn(&Summary) -> u64, interval: Option<Interval>| {
            let new = figure(&new.summary) as f64;
            let (before, change) = match (old, interval) {
                (None, _) => ("-".to_owned(), "new".to_owned()),
                (Some(old), None) => (duration(figure(&old.summary) as f64, "u"), "too few rounds".to_owned()),
                (Some(old), Some(Interval { estimate, low, high })) => {
                    let change = format!("{}x ({} to {})", times(estimate), times(low), times(high));
                    (duration(figure(&old.summary) as f64, "u"), change)
                }
            };
            format!("{before:>9} {:>9}  {change:<23}", duration(new, "u"))
        };
        let line = column(|s| s.p50, change.map(|c| c.p50)) + " " + &column(|s| s.p99, change.map(|c| c.p99));
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text + "\n"
}

/// Every row that the budget speaks of must be within it.
fn judge(budget: &Budget, pairs: &[Pair<'_>], comparison: &mut Comparison) -> Result<(), Error> {
    let ours =
        |pair: &&Pair<'_>| pair.kind == budget.kind && budget.mode.as_deref().is_none_or(|mode| mode == pair.mode);
    let none = Summary::default();
    let mut judged = 0;
    for pair in pairs.iter().filter(ours) {
        let at = format!("{}/{}, {}", pair.mode, pair.kind, table_name(pair.table));
        if pair.new.summary.count == 0 {
            // A mode that the host can't have is no regression, unless it was had before.
            if pair.old.is_some() {
                comparison.met = false;
                judged += 1;
                let _ = writeln!(comparison.text, "budget {budget}: NOT met by {at}: it is not measured any more");
            }
            continue;
        }
        let old = match pair.old {
            Some(old) => &old.summary,
            None if budget.is_relative() => {
                return Err(Error::Usage(format!(
                    "--budget '{budget}': the old file has no samples of {at} to compare with; give an absolute limit, or another old file"
                )));
            }
            None => &none,
        };
        let judgement = budget.judge(&pair.new.summary, old);
        comparison.met &= judgement.met;
        judged += 1;
        let verdict = if judgement.met { "met" } else { "NOT met" };
        let _ = writeln!(comparison.text, "budget {budget}: {verdict} by {at}: {}", judgement.value);
    }
    if judged == 0 {
        comparison.met = false;
        let _ = writeln!(comparison.text, "budget {budget}: NOT met: the new file has no samples of it");
    }
    Ok(())
}

fn table_name(table: Table) -> &'static str {
    match table {
        Table::Best => "best",
        Table::SameCpuid => "same",
        Table::Traced => "traced",
    }
}

/// A file's text for a terminal.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
