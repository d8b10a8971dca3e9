//! Made-up results for tests: every field filled, distributions with a tail, rounds that drift together.

use super::results::*;
use super::statistics::{self, Histogram};

/// A kind: its name, what it measures, its median in `kernel` mode in nanoseconds, and its median in each other mode of [`MODES`] as
/// percent of that.
const KINDS: [(&str, &str, u64, [u64; 5]); 8] = [
    ("ipi_self", "ICR write to first instruction of the handler", 900, [88, 150, 100, 104, 310]),
    ("ipi_running", "ICR write to first instruction on the other CPU", 2600, [94, 101, 100, 103, 280]),
    ("ipi_halted", "ICR write to first instruction on a halted CPU", 9100, [81, 99, 100, 102, 190]),
    ("device_edge", "intended time to first instruction of the handler", 4200, [97, 112, 100, 108, 240]),
    ("device_level", "intended time to the end of the EOI", 5100, [118, 109, 100, 101, 230]),
    ("msi", "intended time to first instruction of the handler", 3900, [92, 97, 100, 105, 260]),
    ("timer_deadline", "deadline to first instruction of the handler", 6400, [106, 100, 100, 99, 180]),
    ("request", "request to completion by the bottom half", 14800, [95, 104, 100, 107, 210]),
];
const MODES: [&str; 5] = ["user", "split", "kernel", "qemu-on", "qemu-off"];
const STAGES: [(&str, u64); 4] =
    [("raised to posted", 12), ("posted to vCPU out", 38), ("vCPU out to injected", 15), ("injected to handler", 35)];

/// One host, one run: every kind in five modes and both tables, some rows without samples.
pub fn results(seed: u64, rounds: u32, samples: usize) -> Results {
    let fingerprint = Fingerprint {
        cpu: "Example <Processor> & \"Co\" 3 GHz".to_owned(),
        cpus: 8,
        kernel: "6.12.57".to_owned(),
        kvm: "AMD".to_owned(),
        nested: seed % 2 == 1,
        kvm_parameters: [("kvm_amd.avic", "N"), ("kvm.halt_poll_ns", "200000")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into(),
        governor: Some("performance".to_owned()),
    };
    let host = Host { fingerprint, runs: vec![run(seed, rounds, samples)] };
    Results { format: FORMAT.to_owned(), version: VERSION, hosts: vec![host] }
}

/// One run.
pub fn run(seed: u64, rounds: u32, samples: usize) -> Run {
    let mut random = fastrand::Rng::with_seed(seed);
    let drift: Vec<u64> = (0..rounds).map(|_| random.u64(95..115)).collect();
    let mut rows = Vec::new();
    for table in [Table::Best, Table::SameCpuid] {
        for kind in &KINDS {
            let mut kernel = Vec::new();
            // The reference first, the order of the file is another one's business.
            for mode in [2, 0, 1, 3, 4] {
                rows.push(row(table, kind, mode, &drift, samples, &mut kernel, &mut random));
            }
        }
    }
    Run {
        tophalf: "0.1.0".to_owned(),
        started: 1_764_000_000 + seed,
        command: ["tophalf", "bench", "--json", "a b.json"].map(str::to_owned).into(),
        seed,
        cpus: 2,
        qemu: None,
        warnings: vec!["frequency boost is on: <clock> & latencies vary with load".to_owned()],
        overhead_ns: 31.5,
        rows,
    }
}

fn row(
    table: Table,
    &(kind, what, median, percent): &(&str, &str, u64, [u64; 5]),
    mode: usize,
    drift: &[u64],
    samples: usize,
    kernel: &mut Vec<(u32, Histogram)>,
    random: &mut fastrand::Rng,
) -> Row {
    let missing =
        (MODES[mode] == "qemu-off" && kind == "ipi_self").then(|| "this QEMU has no <off> mode for it".to_owned());
    let mut outliers = Vec::new();
    let mut rounds = Vec::new();
    for (number, drift) in drift.iter().enumerate().filter(|_| missing.is_none()) {
        let center = median * percent[mode] / 100 * drift / 100;
        let mut histogram = statistics::histogram();
        for sample in 0..samples {
            let latency = latency(center, random);
            histogram.record(latency).unwrap();
            if latency > center * 8 {
                let at_ns = ((number * 5 + mode) as u64 * 1000 + (sample * 1000 / samples) as u64) * 1_000_000 / 4;
                outliers.push(Outlier { at_ns, round: number as u32, latency_ns: latency });
            }
        }
        rounds.push((number as u32, histogram));
    }
    outliers.sort_by_key(|outlier| std::cmp::Reverse(outlier.latency_ns));
    outliers.truncate(20);
    if MODES[mode] == "kernel" {
        kernel.clone_from(&rounds);
    }
    let all = statistics::merged(rounds.iter().map(|(_, round)| round));
    let part = |&(name, percent): &(&str, u64)| {
        let mut part = statistics::histogram();
        for step in all.iter_recorded() {
            part.record_n(step.value_iterated_to() * percent / 100, step.count_at_value()).unwrap();
        }
        Stage { name: name.to_owned(), summary: statistics::summary(&part) }
    };
    let has_stages = missing.is_none() && !MODES[mode].contains("kernel") && !MODES[mode].contains("qemu");
    Row {
        table,
        kind: kind.to_owned(),
        what: what.to_owned(),
        mode: MODES[mode].to_owned(),
        summary: statistics::summary(&all),
        stages: if has_stages { STAGES.iter().map(part).collect() } else { Vec::new() },
        per_interrupt: has_stages.then_some(PerInterrupt { exits: 1.0, kicks: 1.0, ioctls: 2.02, system_calls: 3.01 }),
        outliers,
        ratio: (MODES[mode] != "kernel").then(|| statistics::ratio(&rounds, kernel, 1)).flatten(),
        rounds: rounds
            .iter()
            .map(|(number, round)| Round { number: *number, histogram: statistics::encode(round) })
            .collect(),
        missing,
    }
}

/// About `center`, with a shoulder, and a long tail for one in a hundred.
fn latency(center: u64, random: &mut fastrand::Rng) -> u64 {
    let spread = (0..6).map(|_| random.f64() - 0.5).sum::<f64>() / 4.0;
    let tail = match random.u32(..1000) {
        0 => 40.0 * random.f64() + 8.0,
        1..10 => 6.0 * random.f64() + 1.0,
        10..120 => 1.0 + random.f64() * 0.6,
        _ => 1.0,
    };
    ((center as f64 * (1.0 + spread * 0.4) * tail) as u64).max(1)
}
