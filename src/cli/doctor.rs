//! `tophalf doctor`: the report on this host, for people or as JSON.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use clap::Args;
use vmm::doctor::{Facts, Flavour, Kind, Report};

use super::outcome;

/// What `tophalf doctor` takes.
#[derive(Debug, Args)]
pub struct DoctorArguments {
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Examines the host; exit code 0 when `tophalf run` will work here, 4 when not.
pub fn doctor(arguments: &DoctorArguments) -> ExitCode {
    let report = vmm::doctor::examine();
    let text = if arguments.json {
        match serde_json::to_string_pretty(&report) {
            Ok(json) => json + "\n",
            Err(e) => return outcome::of_error(&vmm::Error::host("the report can't be written as JSON", e)),
        }
    } else {
        text(&report)
    };
    // A closed stdout is no reason to fail: the exit code still tells.
    let _ = std::io::stdout().write_all(text.as_bytes());
    if report.usable { ExitCode::SUCCESS } else { ExitCode::from(vmm::exit_code::HOST) }
}

/// The report for people.
fn text(report: &Report) -> String {
    let mut rows = vec![("KVM", kvm(&report.kvm)), ("host", host(&report.host))];
    let modes = report.modes.iter().map(|mode| match &mode.obstacle {
        None => format!("{} works", mode.name),
        Some(obstacle) => format!("{} does not ({obstacle})", mode.name),
    });
    rows.push(("modes", list(modes)));
    if let Some(Ok(serde_json::Value::Object(features))) = report.features.as_ref().map(serde_json::to_value) {
        rows.push(("probe", list(features.iter().map(|(name, value)| format!("{name} {}", yes_or_no(value))))));
    }
    rows.push(("parameters", list(report.kvm.parameters.iter().map(|(name, value)| format!("{name}={value}")))));

    let mut out = String::new();
    for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{name:<12}{value}");
    }
    if !report.distortions.is_empty() {
        out += "\nLatencies measured here will be distorted by:\n";
        for finding in &report.distortions {
            let _ = writeln!(out, "- {}\n  {}", finding.cause, finding.remedy);
        }
    }
    let _ = match &report.problem {
        None => writeln!(out, "\n`tophalf run` works here."),
        Some(problem) => {
            writeln!(out, "\n`tophalf run` does not work here: {}.\nTo do: {}.", problem.cause, problem.remedy)
        }
    };
    out
}

fn kvm(kvm: &Flavour) -> String {
    let kind = match kvm.kind {
        Kind::Intel => "Intel VT-x",
        Kind::Amd => "AMD-V",
        Kind::Software => "software, without hardware virtualization",
        Kind::None => return "not loaded".to_owned(),
    };
    let module = kvm.module.as_ref().map(|module| format!(" ({module})")).unwrap_or_default();
    let nested = if kvm.nested { ", nested" } else { "" };
    format!("{kind}{module}{nested}")
}

fn host(host: &Facts) -> String {
    let container = if host.container { ", in a container" } else { "" };
    format!("{} CPUs, {}, Linux {}{container}", host.cpus, host.processor, host.kernel)
}

fn yes_or_no(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Bool(true) => "yes".to_owned(),
        serde_json::Value::Bool(false) => "no".to_owned(),
        other => other.to_string(),
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}
