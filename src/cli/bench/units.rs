//! How durations and ratios are written.

/// A duration with three digits and its unit; `micro` is what stands for micro: "u" or "µ".
pub fn duration(ns: f64, micro: &str) -> String {
    let (value, unit) = match ns {
        _ if ns < 999.5 => return format!("{} ns", digits(ns, ns.fract() != 0.0 && ns < 10.0)),
        _ if ns < 999.5e3 => (ns / 1e3, format!("{micro}s")),
        _ if ns < 999.5e6 => (ns / 1e6, "ms".to_owned()),
        _ => (ns / 1e9, "s".to_owned()),
    };
    format!("{} {unit}", digits(value, true))
}

/// A ratio, with three digits but not more than two after the point.
pub fn times(ratio: f64) -> String {
    digits(ratio, true)
}

fn digits(value: f64, fraction: bool) -> String {
    match value {
        _ if !fraction || value >= 99.95 => format!("{value:.0}"),
        _ if value >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_and_the_unit_that_fits() {
        for (ns, text) in [
            (0.0, "0 ns"),
            (7.0, "7 ns"),
            (1.5, "1.50 ns"),
            (999.0, "999 ns"),
            (999.6, "1.00 us"),
            (1234.0, "1.23 us"),
            (12_345.0, "12.3 us"),
            (999_400.0, "999 us"),
            (999_600.0, "1.00 ms"),
            (2e9, "2.00 s"),
            (3.21e11, "321 s"),
        ] {
            assert_eq!(duration(ns, "u"), text);
        }
        assert_eq!([0.913, 9.996, 123.4].map(times), ["0.91", "10.0", "123"]);
    }
}
