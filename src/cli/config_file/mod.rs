//! The TOML file of `--config`: one key for each option of `tophalf run`.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use toml::de::DeTable;

use super::options::{RunOptions, keys};

#[cfg(test)]
mod tests;

/// A file with every option at its longest is far smaller.
const MAX_BYTES: u64 = 1 << 20;
/// A known key is proposed for an unknown one when this much alike (Jaro-Winkler, 0 to 1).
const ALIKE: f64 = 0.7;

/// Reads the options; what the file does not say has its default. An error is one line that names the file, and the
/// line in it when there is one.
pub fn read(path: &Path) -> Result<RunOptions, String> {
    let shown = path.display();
    let unreadable = |e: &std::io::Error| format!("cannot read the configuration {shown}: {e}; check --config");
    let file = File::open(path).map_err(|e| unreadable(&e))?;
    if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return Err(format!("the configuration {shown} is no regular file; give a TOML file with --config"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|e| unreadable(&e))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("the configuration {shown} is larger than 1 MiB; give a TOML file with --config"));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| format!("the configuration {shown} is no text in UTF-8; give a TOML file with --config"))?;
    parse(&text).map_err(|Complaint { line, message }| match line {
        Some(line) => format!("{shown}, line {line}: {message}"),
        None => format!("{shown}: {message}"),
    })
}

/// The options as such a file. Fails for a path that is not UTF-8, which TOML can't hold.
pub fn print(options: &RunOptions) -> Result<String, String> {
    toml::to_string(options).map_err(|e| format!("the options can't be written as TOML: {}", one_line(&e.to_string())))
}

/// What is wrong with a file, and in which line, from 1.
#[derive(Debug, PartialEq)]
struct Complaint {
    line: Option<usize>,
    message: String,
}

fn parse(text: &str) -> Result<RunOptions, Complaint> {
    let complaint = |span: Option<Range<usize>>, message| Complaint { line: span.map(|s| line_of(text, &s)), message };
    let table = DeTable::parse(text).map_err(|e| complaint(e.span(), format!("no TOML: {}", one_line(e.message()))))?;
    let known = keys();
    let entries: Vec<_> = table.get_ref().iter().collect();
    for (key, _) in &entries {
        let name: &str = key.get_ref();
        if !known.iter().any(|known| known == name) {
            return Err(complaint(Some(key.span()), unknown(name, &known)));
        }
    }
    let of_table = |span: &Range<usize>| {
        let found = entries.iter().find(|(_, value)| value.span().start <= span.start && span.end <= value.span().end);
        found.map(|(key, _)| key.get_ref().to_string())
    };
    toml::from_str(text).map_err(|e| {
        let key = e.span().as_ref().and_then(of_table).map(|key| format!("{key}: ")).unwrap_or_default();
        complaint(e.span(), format!("{key}{}", one_line(e.message())))
    })
}

/// The complaint about a key that is none, with the nearest that is one.
fn unknown(name: &str, known: &[String]) -> String {
    let scored = known.iter().map(|key| (strsim::jaro_winkler(name, key), key));
    match scored.max_by(|(a, _), (b, _)| a.total_cmp(b)) {
        Some((alike, key)) if alike >= ALIKE => format!("unknown key {name:?}; did you mean {key:?}?"),
        _ => format!("unknown key {name:?}; there are {}", known.join(", ")),
    }
}

fn line_of(text: &str, span: &Range<usize>) -> usize {
    let before = text.as_bytes().get(..span.start).unwrap_or(text.as_bytes());
    before.iter().filter(|&&byte| byte == b'\n').count() + 1
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}
