//! Which host this is, and what distorts latencies on it: what `doctor` knows.

use vmm::doctor::{Kind, Report};

use crate::cli::bench::results::Fingerprint;

/// The host of this report.
pub fn of(report: &Report) -> Fingerprint {
    let host = &report.host;
    let governors: Vec<&str> = host.governors.keys().map(String::as_str).collect();
    Fingerprint {
        cpu: host.processor.clone(),
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        kernel: host.kernel.clone(),
        kvm: match report.kvm.kind {
            Kind::Intel => "Intel",
            Kind::Amd => "AMD",
            Kind::Software => "software",
            Kind::None => "none",
        }
        .to_owned(),
        nested: report.kvm.nested,
        kvm_parameters: report.kvm.parameters.clone(),
        governor: (!governors.is_empty()).then(|| governors.join(",")),
    }
}

/// One line for each thing that distorts.
pub fn warnings(report: &Report) -> Vec<String> {
    let mut warnings: Vec<String> = report.distortions.iter().map(|finding| finding.cause.clone()).collect();
    if report.kvm.kind == Kind::Software {
        warnings
            .push("guests' ring 0 is interpreted here: what the guest does itself takes most of the time".to_owned());
    }
    warnings
}
