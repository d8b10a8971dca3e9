//! Budgets of `bench compare`: `[MODE/]KIND.FIGURE < LIMIT`.

use std::fmt;

use vmm::Error;

use super::results::Summary;
use super::units;

#[cfg(test)]
mod tests;

/// How a figure is had.
type Figure = fn(&Summary) -> u64;

/// What a budget may speak of.
const FIGURES: [(&str, Figure); 7] = [
    ("min", |s| s.min),
    ("p50", |s| s.p50),
    ("p90", |s| s.p90),
    ("p99", |s| s.p99),
    ("p99.9", |s| s.p999),
    ("p999", |s| s.p999),
    ("max", |s| s.max),
];
/// Units of a limit, in nanoseconds. The longest that fits is taken.
const UNITS: [(&str, f64); 5] = [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9)];
/// A known name is proposed for an unknown one when this much alike (Jaro-Winkler, 0 to 1).
const ALIKE: f64 = 0.7;

/// A limit on a figure of a kind.
#[derive(Clone, Debug)]
pub struct Budget {
    text: String,
    /// Only this mode; without it, all that were measured.
    pub mode: Option<String>,
    /// The kind's name.
    pub kind: String,
    figure: fn(&Summary) -> u64,
    limit: Limit,
    or_equal: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Limit {
    /// So many times the old value.
    Times(f64),
    Nanoseconds(f64),
}

/// What came of a budget in one row.
pub struct Judgement {
    /// It was kept.
    pub met: bool,
    /// The value that was held against the limit.
    pub value: String,
}

impl Budget {
    /// Parses one; an error says what was expected.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Self::parts(text).map_err(|problem| {
            Error::Usage(format!(
                "--budget {text:?} does not parse: {problem}; expected [MODE/]KIND.FIGURE < LIMIT, such as 'ipi_running.p99 < 1.10x' or 'user/msi.p50 < 5us'"
            ))
        })
    }

    fn parts(text: &str) -> Result<Self, String> {
        let (left, limit) = text.split_once('<').ok_or("there is no '<'")?;
        let (limit, or_equal) = limit.strip_prefix('=').map_or((limit, false), |limit| (limit, true));
        let (mode, row) = match left.split_once('/') {
            Some((mode, row)) => (Some(mode.trim()), row.trim()),
            None => (None, left.trim()),
        };
        let (kind, figure) = row.split_once('.').ok_or_else(|| format!("{row:?} has no figure, such as {row}.p99"))?;
        if kind.is_empty() || mode == Some("") {
            return Err("the name before the '.' or '/' is empty".to_owned());
        }
        let known = FIGURES.iter().find(|(name, _)| *name == figure);
        let (_, figure) = known.ok_or_else(|| {
            format!("{figure:?} is no figure; there are {}", FIGURES.map(|(name, _)| name).join(", "))
        })?;
        let (text, mode, kind) = (text.trim().to_owned(), mode.map(str::to_owned), kind.to_owned());
        Ok(Self { text, mode, kind, figure: *figure, limit: Limit::parse(limit.trim())?, or_equal })
    }

    /// An error if no row has the budget's kind or mode: one line with the nearest name that there is.
    pub fn check_names(&self, kinds: &[&str], modes: &[&str]) -> Result<(), Error> {
        let unknown = |sort: &str, name: &str, known: &[&str]| {
            let scored = known.iter().map(|known| (strsim::jaro_winkler(name, known), known));
            let hint = match scored.max_by(|(a, _), (b, _)| a.total_cmp(b)) {
                Some((alike, nearest)) if alike >= ALIKE => format!("did you mean {nearest:?}?"),
                _ => format!("there are {}", known.join(", ")),
            };
            Error::Usage(format!("--budget {:?}: no {sort} {name:?} in the results; {hint}", self.text))
        };
        if !kinds.contains(&self.kind.as_str()) {
            return Err(unknown("kind", &self.kind, kinds));
        }
        match &self.mode {
            Some(mode) if !modes.contains(&mode.as_str()) => Err(unknown("mode", mode, modes)),
            _ => Ok(()),
        }
    }

    /// The limit is a multiple of the old value.
    pub fn is_relative(&self) -> bool {
        matches!(self.limit, Limit::Times(_))
    }

    /// Holds a row against the limit. `old` is not looked at where the limit is absolute.
    pub fn judge(&self, new: &Summary, old: &Summary) -> Judgement {
        let new = (self.figure)(new) as f64;
        let (value, limit, shown) = match self.limit {
            Limit::Nanoseconds(limit) => (new, limit, units::duration(new, "u")),
            Limit::Times(limit) => {
                let old = (self.figure)(old) as f64;
                // Nothing and nothing is the same; something instead of nothing keeps no limit.
                let ratio = if new == old { 1.0 } else { new / old };
                (ratio, limit, format!("{}x", units::times(ratio)))
            }
        };
        Judgement { met: value < limit || self.or_equal && value == limit, value: shown }
    }
}

impl Limit {
    fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is no limit: a number with x, ns, us, ms or s");
        let number = |digits: &str| match digits.trim().parse::<f64>() {
            Ok(number) if number.is_finite() && number > 0.0 => Ok(number),
            _ => Err(bad()),
        };
        if let Some(digits) = text.strip_suffix('x') {
            return Ok(Self::Times(number(digits)?));
        }
        let unit = UNITS.iter().find_map(|(unit, ns)| Some((text.strip_suffix(unit)?, ns)));
        let (digits, ns) = unit.ok_or_else(bad)?;
        Ok(Self::Nanoseconds(number(digits)? * ns))
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
