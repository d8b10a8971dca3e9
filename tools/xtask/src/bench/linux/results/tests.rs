use super::*;

const OUTPUT: &str = "\
@@host cpu Some CPU x 2
@@wakeup user 1 0 10 98
@@wakeup user 1 0 30 1
@@wakeup user 1 0 500 1
@@pipe user 1 0 1000 0.050
@@guest user 1 0 0
@@wakeup kernel 1 0 20 100
@@pipe kernel 1 0 1000 0.025
@@guest kernel 1 0 0
@@wakeup user 1 1 40 100
@@pipe user 1 1 1000 0.100
@@guest user 1 1 0
@@wakeup kernel 1 1 10 100
@@pipe kernel 1 1 1000 0.025
@@guest kernel 1 1 0
";

#[test]
fn quantiles_count_wakeups_and_ratios_are_taken_within_a_round() {
    let results = Results::parse(OUTPUT);
    assert!(results.complete(4, 100, 1000) && !results.complete(5, 100, 1000) && !results.complete(4, 101, 1000));
    let text = results.to_string();
    let row = |nth: usize| text.lines().filter(|line| line.starts_with("user ")).nth(nth).expect("a row").to_owned();
    // 10/20 and 40/10; 30 of the first round's 99th, 500 its last.
    for part in ["25.00 (10.00-40.00)", "35.00 (30.00-40.00)", "270.00 (40.00-500.00)", "2.25 (0.50-4.00)"] {
        assert!(row(0).contains(part), "{part} in {text}");
    }
    assert!(row(1).contains("75.00 (50.00-100.00)") && row(1).ends_with("3.00 (2.00-4.00)"), "{text}");
}

#[test]
fn a_guest_that_failed_spoils_the_run() {
    for (from, to) in [("@@guest user 1 0 0", "@@guest user 1 0 36"), ("@@pipe user 1 0 1000 0.050\n", "")] {
        assert!(!Results::parse(&OUTPUT.replace(from, to)).complete(4, 100, 1000), "{from}");
    }
}

#[test]
fn garbled_lines_are_no_figures() {
    let results =
        Results::parse("@@wakeup user 1\n@@wakeup nobody 1 0 5 5\n@@pipe user 1 0 x 1\n@@other user 1 0 1 1\n");
    assert!(results.guests.values().all(|guest| guest.samples() == 0 && guest.pipe.is_none()));
    assert!(results.to_string().contains("did not come up"));
}
