use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};

use super::*;

/// A pseudo-terminal: its controlling side and the side that a program sees.
fn pty() -> (OwnedFd, OwnedFd) {
    let (mut master, mut slave) = (0, 0);
    // SAFETY: openpty writes two descriptors, which the OwnedFds then own alone; the other arguments are not wanted.
    unsafe {
        let ret = libc::openpty(&mut master, &mut slave, ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
        assert_eq!(ret, 0);
        (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave))
    }
}

fn status_flags(fd: &impl AsFd) -> i32 {
    // SAFETY: F_GETFL takes no argument; the descriptor is open.
    unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_GETFL) }
}

#[test]
fn what_is_no_terminal_is_left_alone() {
    let (reader, _writer) = io::pipe().unwrap();
    assert!(RawMode::enter(&reader).unwrap().is_none());
}

#[test]
fn a_terminal_we_are_not_in_the_foreground_of_is_left_alone() {
    // A fresh pseudo-terminal is nobody's controlling terminal, so we are not its foreground group.
    let (_master, slave) = pty();
    assert!(RawMode::enter(&slave).unwrap().is_none());
}

#[test]
fn restoring_without_raw_mode_does_nothing() {
    restore_now();
    restore_now();
    assert!(SAVED.load(Ordering::SeqCst).is_null());
}

#[test]
fn a_pipe_is_reopened_non_blocking_and_the_original_keeps_its_flags() {
    let (reader, mut writer) = io::pipe().unwrap();
    let Stream::NonBlocking(own) = reopen(&reader, Direction::Input).unwrap() else { panic!("pipes can be reopened") };
    assert_eq!(status_flags(&reader) & libc::O_NONBLOCK, 0);
    assert_ne!(status_flags(&own) & libc::O_NONBLOCK, 0);
    let mut byte = [0; 1];
    assert_eq!((&own).read(&mut byte).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    writer.write_all(b"k").unwrap();
    assert_eq!((&own).read(&mut byte).unwrap(), 1);
    assert_eq!(&byte, b"k");
}

#[test]
fn the_writing_end_of_a_full_pipe_does_not_block() {
    let (_reader, writer) = io::pipe().unwrap();
    let Stream::NonBlocking(own) = reopen(&writer, Direction::Output).unwrap() else { panic!("pipes can be reopened") };
    let block = [0; 4096];
    let end = loop {
        if let Err(e) = (&own).write(&block) {
            break e;
        }
    };
    assert_eq!(end.kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn a_terminal_is_reopened_non_blocking() {
    let (_master, slave) = pty();
    assert!(matches!(reopen(&slave, Direction::Input).unwrap(), Stream::NonBlocking(_)));
    assert_eq!(status_flags(&slave) & libc::O_NONBLOCK, 0);
}

#[test]
fn a_plain_file_and_the_null_device_are_shared() {
    let null = File::open("/dev/null").unwrap();
    assert!(matches!(reopen(&null, Direction::Input).unwrap(), Stream::Shared(_)));
    let plain = File::open(std::env::current_exe().unwrap()).unwrap();
    assert!(matches!(reopen(&plain, Direction::Input).unwrap(), Stream::Shared(_)));
}
