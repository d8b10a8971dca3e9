//! The log on stderr: its level, and its form.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use log::Record;
use serde::{Deserialize, Serialize};

#[cfg(test)]
mod tests;

/// Environment variable that overrides `-v`.
const VARIABLE: &str = "RUST_LOG";

/// Form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs: one JSON object a line.
    Json,
}

/// Starts the log: `verbose` 0 shows warnings, 1 information, 2 debugging, more everything; `RUST_LOG` overrides it.
/// An error is one line about `RUST_LOG`.
pub fn start(verbose: u8, format: LogFormat) -> Result<(), String> {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let filters = match std::env::var(VARIABLE) {
        Ok(text) if !text.is_empty() => text,
        _ => level.to_owned(),
    };
    if let Err(e) = env_filter::Builder::new().try_parse(&filters) {
        return Err(format!("{VARIABLE} can't be understood: {e}; write for example {VARIABLE}=info"));
    }
    let mut builder = env_logger::Builder::new();
    builder.parse_filters(&filters);
    if format == LogFormat::Json {
        builder.format(|out, record| writeln!(out, "{}", json_line(record)));
    }
    #[cfg(debug_assertions)]
    panic_on_purpose(&mut builder);
    // Fails only when there is a logger already, which is then as good.
    let _ = builder.try_init();
    Ok(())
}

/// In test builds only: tests have the program panic at a place of their choice, where it logs a message with the text of
/// TOPHALF_TEST_PANIC in it.
#[cfg(debug_assertions)]
fn panic_on_purpose(builder: &mut env_logger::Builder) {
    if let Ok(text) = std::env::var("TOPHALF_TEST_PANIC") {
        builder.format(move |_, record| {
            let message = record.args().to_string();
            assert!(!message.contains(&text), "made on purpose: {message}");
            Ok(())
        });
    }
}

/// A log record as JSON, without the line's end. Its time is now, in seconds since 1970.
pub fn json_line(record: &Record<'_>) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    serde_json::json!({
        "time": now.as_micros() as f64 / 1e6,
        "level": record.level().as_str(),
        "target": record.target(),
        "message": record.args().to_string(),
    })
    .to_string()
}
