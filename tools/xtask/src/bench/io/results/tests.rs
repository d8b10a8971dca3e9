use super::*;

/// Two rounds of two kinds, all measurements alike.
fn output() -> String {
    let mut text = "@@host cpu Some CPU x 2\n".to_owned();
    for (kind, round, rate, ticks) in
        [("user", 0, 500, 40), ("qemu-on", 0, 1000, 20), ("user", 1, 800, 20), ("qemu-on", 1, 800, 20)]
    {
        for (name, ..) in MEASURED {
            text += &format!(
                "@@ticks {kind} 1 {round} {name} {ticks} 10 30 500\n@@value {kind} 1 {round} {name} {rate} 1000 250\n"
            );
        }
        text += &format!("@@guest {kind} 1 {round} 0\n");
    }
    text
}

#[test]
fn ratios_are_taken_within_a_round_and_costs_for_an_operation() {
    let results = Results::parse(&output());
    assert!(results.complete(4) && !results.complete(5));
    let text = results.to_string();
    let row = |nth: usize| text.lines().filter(|line| line.starts_with("user ")).nth(nth).expect("a row").to_owned();
    // 500/1000 and 800/800; 400 and 200 us in the guest.
    for part in ["650.00 (500.00-800.00)", "0.75 (0.50-1.00)", "300 / 100 / 300", "0.25 / 0.50"] {
        assert!(row(0).contains(part), "{part} in {text}");
    }
    assert!(row(1).contains("0.63 (0.49-0.78)"), "MiB/s from KiB/s: {text}");
}

#[test]
fn a_guest_that_failed_or_lacks_a_figure_spoils_the_run() {
    for (from, to) in [
        ("@@guest user 1 0 0", "@@guest user 1 0 36"),
        ("@@value user 1 0 send 500 1000 250\n", ""),
        ("@@value user 1 0 send 500 1000 250\n", "@@value user 1 0 send 500 1000\n"),
        ("@@ticks user 1 0 answer", "@@ticks user 1 0 other"),
    ] {
        assert!(output().contains(from), "{from}");
        assert!(!Results::parse(&output().replace(from, to)).complete(4), "{from}");
    }
}

#[test]
fn garbled_lines_are_no_figures() {
    let results = Results::parse(
        "@@value user 1\n@@value nobody 1 0 send 5 5 5\n@@value user 1 0 send x 1 1\n@@other user 1 0 send 1 1\n",
    );
    assert!(results.guests.values().all(|guest| guest.values.is_empty()));
    assert!(results.to_string().contains("did not come up"));
}
