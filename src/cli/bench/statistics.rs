//! Distributions and what is said of them: percentiles, and ratios with their confidence.
//!
//! A ratio's interval is a percentile bootstrap over rounds: rounds are what is independent. Samples within one are not, since a
//! disturbance of the host hits many of them, so resampling samples would promise too much.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};

use super::results::{Interval, Ratio, Summary};

#[cfg(test)]
mod tests;

/// Latencies in nanoseconds.
pub type Histogram = hdrhistogram::Histogram<u64>;

/// Digits that a histogram keeps of a value.
const DIGITS: u8 = 3;
/// More than a round can have; sums of as many in all rounds and resamples fit 64 bits.
const MAX_SAMPLES: u64 = 1 << 40;
/// How often the rounds are drawn anew: the interval's ends are the 50th values from below and from above.
const RESAMPLES: usize = 2000;
/// The part of the resamples beyond each end of a 95% interval.
const TAIL: f64 = 0.025;

/// An empty one, which grows as needed and keeps three digits.
pub fn histogram() -> Histogram {
    // Fails for more than five digits only.
    Histogram::new(DIGITS).unwrap_or_else(|e| unreachable!("{DIGITS} digits: {e}"))
}

/// All of them in one, without loss.
pub fn merged<'a>(rounds: impl IntoIterator<Item = &'a Histogram>) -> Histogram {
    let mut all = histogram();
    for round in rounds {
        // Fails for values that do not fit only, and ours grows.
        all.add(round).unwrap_or_else(|e| unreachable!("a histogram that grows: {e}"));
    }
    all
}

/// The figures of a distribution; all 0 for an empty one.
pub fn summary(histogram: &Histogram) -> Summary {
    if histogram.is_empty() {
        return Summary::default();
    }
    Summary {
        count: histogram.len(),
        min: histogram.min(),
        p50: histogram.value_at_quantile(0.5),
        p90: histogram.value_at_quantile(0.9),
        p99: histogram.value_at_quantile(0.99),
        p999: histogram.value_at_quantile(0.999),
        max: histogram.max(),
    }
}

/// As a result file holds it: V2, deflated, base64.
pub fn encode(histogram: &Histogram) -> String {
    let mut bytes = Vec::new();
    let written = V2DeflateSerializer::new().serialize(histogram, &mut bytes);
    // A vector takes everything; what is left is a histogram of more than 2^40 bytes.
    written.unwrap_or_else(|e| unreachable!("a histogram into memory: {e}"));
    STANDARD.encode(bytes)
}

/// The histogram of a result file. An error says what is wrong with it.
pub fn decode(text: &str) -> Result<Histogram, String> {
    let bytes = STANDARD.decode(text).map_err(|e| format!("no base64: {e}"))?;
    let mut histogram: Histogram =
        Deserializer::new().deserialize(&mut &bytes[..]).map_err(|e| format!("no HDR histogram: {e}"))?;
    if histogram.sigfig() != DIGITS || histogram.low() != 1 {
        return Err(format!("not a histogram of nanoseconds with {DIGITS} digits"));
    }
    if histogram.len() > MAX_SAMPLES {
        return Err(format!("{} samples in one round", histogram.len()));
    }
    histogram.auto(true);
    Ok(histogram)
}

/// How many times as long as in `kernel` mode a mode takes. Rounds of the same number are drawn together, since they were
/// neighbours in time, and what disturbed one disturbed the other; rounds that one of the two lacks do not count.
///
/// Absent with fewer than two rounds in common (there is nothing to draw from), and where `kernel` took 0 ns. The same seed
/// gives the same interval. With fewer than six rounds an interval made of them is narrower than 95% confidence needs.
pub fn ratio(mode: &[(u32, Histogram)], kernel: &[(u32, Histogram)], seed: u64) -> Option<Ratio> {
    let pairs: Vec<(&Histogram, &Histogram)> = mode
        .iter()
        .filter_map(|(number, ours)| {
            let (_, theirs) = kernel.iter().find(|(other, _)| other == number)?;
            (!ours.is_empty() && !theirs.is_empty()).then_some((ours, theirs))
        })
        .collect();
    let (ours, theirs) = (
        Quantiles::new(&pairs.iter().map(|(ours, _)| *ours).collect::<Vec<_>>()),
        Quantiles::new(&pairs.iter().map(|(_, theirs)| *theirs).collect::<Vec<_>>()),
    );
    let mut random = fastrand::Rng::with_seed(seed);
    bootstrap(&ours, &theirs, || {
        let drawn = draw(pairs.len(), &mut random);
        (drawn.clone(), drawn)
    })
}

/// How many times as long as `old` a row of another run takes; the rounds of two runs are drawn apart.
///
/// Absent where one of them has fewer than two rounds, and where `old` took 0 ns.
pub fn change(new: &[(u32, Histogram)], old: &[(u32, Histogram)], seed: u64) -> Option<Ratio> {
    let quantiles = |rounds: &[(u32, Histogram)]| {
        Quantiles::new(&rounds.iter().map(|(_, round)| round).filter(|round| !round.is_empty()).collect::<Vec<_>>())
    };
    let (new, old) = (quantiles(new), quantiles(old));
    let mut random = fastrand::Rng::with_seed(seed);
    bootstrap(&new, &old, || (draw(new.rounds(), &mut random), draw(old.rounds(), &mut random)))
}

/// How often each of `rounds` rounds is in a sample of as many, drawn with replacement.
fn draw(rounds: usize, random: &mut fastrand::Rng) -> Vec<u64> {
    let mut weights = vec![0; rounds];
    for _ in 0..rounds {
        weights[random.usize(..rounds)] += 1;
    }
    weights
}

/// The ratios of all rounds, and where those of the samples that `weights` draws lie.
fn bootstrap(above: &Quantiles, below: &Quantiles, mut weights: impl FnMut() -> (Vec<u64>, Vec<u64>)) -> Option<Ratio> {
    if above.rounds() < 2 || below.rounds() < 2 {
        return None;
    }
    let once = (vec![1; above.rounds()], vec![1; below.rounds()]);
    let drawn: Vec<_> = (0..RESAMPLES).map(|_| weights()).collect();
    let interval = |quantile: f64| {
        let of = |(a, b): &(Vec<u64>, Vec<u64>)| {
            let below = below.at(quantile, b);
            (below > 0).then(|| above.at(quantile, a) as f64 / below as f64)
        };
        let estimate = of(&once)?;
        let mut ratios = drawn.iter().map(of).collect::<Option<Vec<_>>>()?;
        ratios.sort_by(f64::total_cmp);
        let cut = (RESAMPLES as f64 * TAIL) as usize;
        Some(Interval { estimate, low: ratios[cut - 1], high: ratios[RESAMPLES - cut] })
    };
    Some(Ratio { p50: interval(0.5)?, p99: interval(0.99)? })
}

/// Rounds in a form in which a quantile of any mixture of them is found without adding them up.
struct Quantiles {
    /// All values that occur, ascending.
    values: Vec<u64>,
    /// For each round, how many of its samples are at most each of `values`.
    up_to: Vec<Vec<u64>>,
}

impl Quantiles {
    fn new(rounds: &[&Histogram]) -> Self {
        let all = merged(rounds.iter().copied());
        let values: Vec<u64> = all.iter_recorded().map(|step| step.value_iterated_to()).collect();
        let up_to = rounds
            .iter()
            .map(|round| {
                let mut counts = vec![0; values.len()];
                for step in round.iter_recorded() {
                    counts[values.partition_point(|value| *value < step.value_iterated_to())] += step.count_at_value();
                }
                let mut sum = 0;
                counts
                    .iter()
                    .map(|count| {
                        sum += count;
                        sum
                    })
                    .collect()
            })
            .collect();
        Self { values, up_to }
    }

    fn rounds(&self) -> usize {
        self.up_to.len()
    }

    /// The quantile, each round counted as often as `weights` says; as `Histogram::value_at_quantile` has it.
    fn at(&self, quantile: f64, weights: &[u64]) -> u64 {
        let up_to =
            |index: usize| -> u64 { self.up_to.iter().zip(weights).map(|(round, weight)| round[index] * weight).sum() };
        let last = self.values.len() - 1;
        let wanted = ((up_to(last) as f64 * quantile).ceil() as u64).max(1);
        let (mut low, mut high) = (0, last);
        while low < high {
            let middle = (low + high) / 2;
            if up_to(middle) >= wanted { high = middle } else { low = middle + 1 }
        }
        self.values[low]
    }
}
