use super::*;

fn shell(script: &str, limit: Duration) -> (Finished, Vec<String>) {
    let mut lines = Vec::new();
    let finished = run(Command::new("sh").args(["-c", script]), limit, |line| lines.push(line.to_owned())).unwrap();
    lines.sort();
    (finished, lines)
}

#[test]
fn both_streams_are_read_and_the_exit_code_is_seen() {
    let (finished, lines) = shell("echo a; echo b >&2; printf c; exit 3", Duration::from_secs(60));
    assert!(!finished.success && !finished.timed_out);
    assert_eq!(lines, ["a", "b", "c"]);
    assert!(shell("true", Duration::from_secs(60)).0.success);
}

#[test]
fn a_program_that_never_ends_is_killed_with_its_children() {
    let (finished, _) = shell("sleep 1000 & sleep 1000; wait", Duration::from_millis(50));
    assert!(finished.timed_out && !finished.success);
}
