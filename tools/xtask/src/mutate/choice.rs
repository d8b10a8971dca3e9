//! Which faults there are, and which of them are tried.

use anyhow::{Context, Result};
use serde_json::Value;

#[cfg(test)]
mod tests;

/// A fault that the program can have.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// Its name.
    pub name: String,
    /// What is wrong.
    pub what: String,
    /// The tests to try first: names or patterns.
    pub first: Vec<String>,
}

/// Reads the list that the program prints.
///
/// # Errors
/// When it is none.
pub fn parse(json: &str) -> Result<Vec<Fault>> {
    let list: Value = serde_json::from_str(json).context("the list of faults is no JSON")?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let fault = |value: &Value| {
        let first = value["first"].as_array()?.iter().map(text).collect::<Option<Vec<_>>>()?;
        Some(Fault { name: text(&value["name"])?, what: text(&value["what"])?, first })
    };
    let faults: Option<Vec<Fault>> = list.as_array().and_then(|list| list.iter().map(fault).collect());
    faults.filter(|faults| !faults.is_empty()).context("the list of faults is of another version")
}

/// `count` of the faults, or all if there are no more, spread over the list. Seeds that follow each other choose others, until
/// all have had their turn.
pub fn choose(faults: &[Fault], count: usize, seed: u64) -> Vec<Fault> {
    let stride = faults.len().div_ceil(count.max(1)).max(1);
    let start = (seed % stride as u64) as usize;
    let indexes = (0..count.min(faults.len())).map(|n| (start + n * stride) % faults.len().max(1));
    indexes.map(|index| faults[index].clone()).collect()
}

/// The faults whose names match one of the patterns, in the order of the list.
///
/// # Errors
/// The pattern that matches none.
pub fn select(faults: &[Fault], patterns: &[String]) -> Result<Vec<Fault>, String> {
    for pattern in patterns {
        if !faults.iter().any(|fault| matches(pattern, &fault.name)) {
            return Err(format!("no fault is called {pattern:?}; `cargo xtask mutate --list` names all"));
        }
    }
    let wanted = |fault: &&Fault| patterns.iter().any(|pattern| matches(pattern, &fault.name));
    Ok(faults.iter().filter(wanted).cloned().collect())
}

/// `pattern` is a name, or has one or more `*` for any text; capitals count no more than small letters.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.to_ascii_lowercase(), name.to_ascii_lowercase());
    let Some((head, tail)) = pattern.split_once('*') else { return pattern == name };
    let Some(rest) = name.strip_prefix(head) else { return false };
    rest.char_indices().map(|(at, _)| &rest[at..]).chain([""]).any(|rest| matches(tail, rest))
}
