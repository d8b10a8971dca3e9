use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::thread;

use super::dies_with_its_parent;

/// A process that goes on until its standard input ends, which it does not while we hold the other end.
fn endless() -> Command {
    let mut command = Command::new("cat");
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    command
}

#[test]
fn a_child_is_killed_when_the_thread_that_started_it_ends() {
    let child = thread::spawn(|| {
        let mut command = endless();
        dies_with_its_parent(&mut command);
        command.spawn().expect("a process")
    });
    let mut child = child.join().expect("no panic");
    // Waiting closes its input, which would end it, too.
    let input = child.stdin.take();
    assert_eq!(child.wait().expect("it is ours").signal(), Some(libc::SIGKILL));
    drop(input);
}

#[test]
fn a_child_of_a_thread_that_goes_on_ends_by_itself() {
    let mut command = endless();
    dies_with_its_parent(&mut command);
    let mut child = command.spawn().expect("a process");
    drop(child.stdin.take());
    assert_eq!(child.wait().expect("it is ours").code(), Some(0));
}
