use super::*;
use crate::test::libtest::Count;

#[test]
fn lines_of_two_streams_are_put_together_whatever_their_pieces() {
    let mut out = Shared::new("boots");
    let mut err = out.clone();
    for piece in ["running 2 tests\ntest a ", "... ok\nte", "st b ... FAILED\n"] {
        out.write_all(piece.as_bytes()).unwrap();
        err.write_all(b"x").unwrap();
    }
    err.write_all(b"\n").unwrap();
    out.write_all(b"test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n").unwrap();
    let report = out.take().report(false, None);
    assert_eq!(report.count, Count { passed: 1, failed: 1, skipped: 0 });
    assert_eq!(report.output[3], "xxx");
}

#[test]
fn a_host_that_died_half_way_fails_even_when_all_tests_so_far_passed() {
    let mut progress = Progress::new("boots");
    progress.line("running 2 tests");
    progress.line("test a ... ok");
    assert_eq!(progress.report(false, None).count.failed, 1);
}

/// Runs tests in hosts that stand still at the test `bad`, so many times.
fn with_a_bad_one(mut stops: u32) -> (Report, Vec<Vec<String>>) {
    let mut runs = Vec::new();
    let names = ["a", "bad", "c"].map(str::to_owned);
    let report = in_hosts("boots", &names, |names, progress| {
        runs.push(names.to_vec());
        let mut progress = progress.clone();
        writeln!(progress, "running {} tests", names.len())?;
        for name in names {
            if name == "bad" && stops > 0 {
                stops -= 1;
                write!(progress, "test bad ... ")?;
                return Err(failure::host("it stood still"));
            }
            writeln!(progress, "test {name} ... ok")?;
        }
        writeln!(progress, "test result: ok. {} passed; 0 failed; 0 ignored", names.len())?;
        Ok(true)
    });
    (report.unwrap(), runs)
}

#[test]
fn after_a_host_that_stood_still_the_rest_runs_in_another() {
    let (report, runs) = with_a_bad_one(1);
    assert_eq!(report.count, Count { passed: 3, failed: 0, skipped: 0 });
    assert_eq!(runs, [vec!["a", "bad", "c"], vec!["bad", "c"]]);
    assert!(report.output.contains(&"bad: it stood still".to_owned()), "{:?}", report.output);
}

#[test]
fn a_test_in_which_two_hosts_stood_still_has_failed() {
    let (report, runs) = with_a_bad_one(2);
    assert_eq!(report.count, Count { passed: 2, failed: 1, skipped: 0 });
    assert_eq!(runs, [vec!["a", "bad", "c"], vec!["bad", "c"], vec!["c"]]);
}

#[test]
fn hosts_that_never_come_up_or_die_in_every_test_are_not_tried_on_and_on() {
    for begins in [false, true] {
        let mut runs = 0;
        let names: Vec<String> = (0..40).map(|n| format!("test{n}")).collect();
        let error = in_hosts("boots", &names, |names, progress| {
            runs += 1;
            if begins {
                writeln!(progress.clone(), "running {} tests", names.len())?;
            }
            Err(failure::host("it died"))
        });
        assert!(error.is_err_and(|error| error.to_string() == "it died"));
        assert_eq!(runs, if begins { 5 } else { 1 });
    }
}
