use super::{Boot, Results};
use crate::bench::kinds::Kind;

const OUTPUT: &str = "\
@@host cpu Some CPU x 2
noise
@@boot user 1 0 10.00 16.00 17.00 0 5.50
@@boot kernel 1 0 20.00 25.00 26.00 0 4.50
@@boot kernel 1 1 30.00 34.00 35.00 0 4.00
@@boot user 1 1 40.00 46.00 47.00 0 5.50
@@boot user 2 0 50.00 - 350.00 124 -
";

#[test]
fn a_ratio_is_taken_within_its_round() {
    let results = Results::parse(OUTPUT);
    let table = results.to_string();
    // 6/5 and 6/4.
    assert!(table.lines().any(|line| line.starts_with("user ") && line.ends_with("1.35 (1.20-1.50)")), "{table}");
    assert!(table.starts_with("host cpu Some CPU x 2\n"), "{table}");
}

#[test]
fn a_guest_that_hangs_is_no_result_and_spoils_the_run() {
    let results = Results::parse(OUTPUT);
    assert!(results.to_string().contains("did not come up"));
    assert!(!results.complete(5));
    let good = Results::parse(&OUTPUT.lines().take(6).collect::<Vec<_>>().join("\n"));
    assert!(good.complete(4));
    assert!(!good.complete(5));
}

#[test]
fn a_boot_that_came_up_but_failed_to_power_off_does_not_count() {
    let boot = Boot::parse("user 1 0 10.00 16.00 17.00 36 5.50").unwrap();
    assert_eq!((boot.kind, boot.times), (Kind::User, None));
    assert_eq!(Boot::parse("user 1 0 10.00 16.00"), None);
}
