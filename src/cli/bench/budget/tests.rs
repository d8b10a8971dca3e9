use super::*;

fn summary(p99: u64) -> Summary {
    Summary { count: 10, min: 1, p50: 2, p90: 3, p99, p999: 5000, max: 6000 }
}

#[test]
fn relative_limits_are_held_against_the_old_value() {
    let budget = Budget::parse("ipi_running.p99 < 1.10x").unwrap();
    assert!(budget.is_relative() && budget.mode.is_none() && budget.kind == "ipi_running");
    for (new, old, met) in [(109, 100, true), (111, 100, false), (0, 0, true), (1, 0, false), (0, 5, true)] {
        assert_eq!(budget.judge(&summary(new), &summary(old)).met, met, "{new} after {old}");
    }
    assert_eq!(budget.judge(&summary(109), &summary(100)).value, "1.09x");
}

#[test]
fn absolute_limits_have_units() {
    for (limit, good, bad) in [
        ("5us", 4999, 5000),
        ("5 µs", 4999, 5001),
        ("250ns", 249, 250),
        ("0.5ms", 499_999, 500_000),
        ("1s", 999_999_999, 1_000_000_000),
    ] {
        let budget = Budget::parse(&format!("user/msi.p99<{limit}")).unwrap();
        assert_eq!((budget.mode.as_deref(), budget.is_relative()), (Some("user"), false));
        assert!(budget.judge(&summary(good), &summary(1)).met, "{good} < {limit}");
        assert!(!budget.judge(&summary(bad), &summary(1)).met, "{bad} < {limit}");
    }
    let at_most = Budget::parse("msi.p99 <= 5us").unwrap();
    assert!(at_most.judge(&summary(5000), &summary(1)).met && !at_most.judge(&summary(5001), &summary(1)).met);
}

#[test]
fn every_figure_is_the_one_it_names() {
    let s = summary(4);
    let of = |figure: &str| (Budget::parse(&format!("k.{figure} < 1x")).unwrap().figure)(&s);
    assert_eq!(["min", "p50", "p90", "p99", "p99.9", "p999", "max"].map(of), [1, 2, 3, 4, 5000, 5000, 6000]);
}

#[test]
fn what_does_not_parse_says_what_was_expected() {
    for (text, word) in [
        ("", "no '<'"),
        ("ipi.p99 > 5us", "no '<'"),
        ("ipi < 5us", "no figure, such as ipi.p99"),
        ("ipi.p95 < 5us", "\"p95\" is no figure; there are min, p50"),
        (".p99 < 5us", "empty"),
        ("/ipi.p99 < 5us", "empty"),
        ("ipi.p99 < ", "no limit"),
        ("ipi.p99 < 5", "no limit"),
        ("ipi.p99 < 5 parsecs", "no limit"),
        ("ipi.p99 < us", "no limit"),
        ("ipi.p99 < -1x", "no limit"),
        ("ipi.p99 < NaNx", "no limit"),
        ("ipi.p99 < infx", "no limit"),
        ("ipi.p99 < 0x", "no limit"),
    ] {
        let error = Budget::parse(text).unwrap_err();
        assert_eq!(error.exit_code(), vmm::exit_code::USAGE);
        let line = error.to_string();
        assert!(
            line.contains(word) && line.contains("expected [MODE/]KIND.FIGURE < LIMIT") && !line.contains('\n'),
            "{line}"
        );
    }
}

#[test]
fn unknown_names_get_the_nearest_known_one() {
    let check = |text: &str| Budget::parse(text).unwrap().check_names(&["ipi_running", "msi"], &["user", "kernel"]);
    assert!(check("ipi_running.p50 < 1x").is_ok() && check("user/msi.p50 < 1x").is_ok());
    for (text, words) in [
        ("ipi_runing.p50 < 1x", ["no kind \"ipi_runing\"", "did you mean \"ipi_running\"?"]),
        ("usr/msi.p50 < 1x", ["no mode \"usr\"", "did you mean \"user\"?"]),
        ("zzz.p50 < 1x", ["no kind \"zzz\"", "there are ipi_running, msi"]),
    ] {
        let line = check(text).unwrap_err().to_string();
        assert!(words.iter().all(|word| line.contains(word)), "{line}");
    }
}
