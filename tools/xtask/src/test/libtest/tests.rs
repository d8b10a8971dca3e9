use super::*;

fn tally(text: &str) -> Count {
    let mut tally = Tally::default();
    text.lines().for_each(|line| tally.line(line));
    tally.count()
}

#[test]
fn summaries_of_several_programs_are_added_up() {
    let text = "\
running 34 tests
test a ... ok
test result: ok. 33 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.05s
running 1 test
test result: FAILED. 2 passed; 5 failed; 0 ignored; 0 measured; 7 filtered out; finished in 1.00s
";
    assert_eq!(tally(text), Count { passed: 35, failed: 5, skipped: 1 });
}

#[test]
fn tests_left_for_a_later_step_are_not_skipped() {
    let text = "\
running 3 tests
test boots ... ignored, needs real KVM: run by cargo xtask test
test slow ... ignored, takes a day
test plain ... ignored
test result: ok. 0 passed; 0 failed; 3 ignored; 0 measured; 0 filtered out; finished in 0.00s
";
    assert_eq!(tally(text), Count { passed: 0, failed: 0, skipped: 2 });
}

#[test]
fn tests_that_say_so_are_skipped_whatever_rust_says() {
    let text = "\
running 4 tests
test a ... ok
test b ... ok
test c ... ok
test d ... FAILED

successes:

---- a stdout ----
SKIPPED: no tap
SKIPPED: no tap either
---- b stdout ----
SKIPPED: no tap
---- c stdout ----
left out: something

successes:
    a
    b
    c

failures:

---- d stdout ----
SKIPPED: of no use

test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.05s
";
    let mut tally = Tally::default();
    text.lines().for_each(|line| tally.line(line));
    assert_eq!(tally.count(), Count { passed: 1, failed: 1, skipped: 2 });
    assert_eq!(tally.why().as_deref(), Some("no tap"));
}

#[test]
fn a_program_that_crashed_before_its_summary_is_a_failure() {
    assert_eq!(tally("running 3 tests\ntest a ... ok\n"), Count { passed: 0, failed: 1, skipped: 0 });
    assert_eq!(tally(""), Count::default());
}

#[test]
fn what_failed_tests_printed_is_found_among_the_rest() {
    let long = "more\n".repeat(500);
    let text = format!(
        "\
running 2 tests
test a ... ok
test b ... FAILED

failures:

---- b stdout ----
why b failed
{long}

failures:
    b

test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.05s
running 1 test
test c ... ok
test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s
"
    );
    let output: Vec<_> = text.lines().map(str::to_owned).collect();
    let kept = failures(&output);
    assert!(kept.contains(&"why b failed") && kept.contains(&"    b"), "{kept:?}");
    assert!(kept.iter().all(|line| !line.starts_with("test ")) && kept.len() < 100, "{kept:?}");
}

#[test]
fn failed_tests_are_named_whoever_ran_them() {
    let output =
        ["test a::b ... FAILED", "test a::c ... ok", "user    FAILED    0.2 s  a.c: 2 < 3", "user    ok  0.2 s  a.d"];
    assert_eq!(failed(&output.map(str::to_owned)), ["a::b", "a.c"]);
}
