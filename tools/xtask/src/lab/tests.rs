use super::*;

#[test]
fn the_script_runs_the_command_word_for_word() {
    let job = Job {
        command: ["printf", "%s|", "a b", "$x", "it's"].map(str::to_owned).to_vec(),
        environment: vec![("x".to_owned(), "1 2'3".to_owned())],
        ..Job::default()
    };
    let output = std::process::Command::new("sh").arg("-c").arg(script(&job)).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "a b|$x|it's|");
}

#[test]
fn the_script_sets_the_environment() {
    let job = Job {
        command: ["sh", "-c", "echo \"$A/$B\""].map(str::to_owned).to_vec(),
        environment: vec![("A".to_owned(), "1 2'3".to_owned()), ("B".to_owned(), "=x".to_owned())],
        ..Job::default()
    };
    let output = std::process::Command::new("sh").arg("-c").arg(script(&job)).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1 2'3/=x\n");
}
