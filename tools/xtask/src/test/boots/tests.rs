use super::*;
use crate::test::libtest::Count;

#[test]
fn lines_of_two_streams_are_put_together_whatever_their_pieces() {
    let mut out = Shared::default();
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
    let mut progress = Progress::default();
    progress.line("running 2 tests");
    progress.line("test a ... ok");
    assert_eq!(progress.report(false, None).count.failed, 1);
}
