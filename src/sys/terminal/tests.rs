use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

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
fn both_sides_of_a_pseudo_terminal_know_its_size() {
    let (master, slave) = pty();
    assert_eq!([size(&master), size(&slave)], [Some(Size::default()); 2]);
    let wanted = libc::winsize { ws_row: 43, ws_col: 132, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the descriptor is open, and the size is initialised.
    assert_eq!(unsafe { libc::ioctl(slave.as_raw_fd(), libc::TIOCSWINSZ, &wanted) }, 0);
    assert_eq!([size(&master), size(&slave)], [Some(Size { columns: 132, rows: 43 }); 2]);
    let (pipe, _) = io::pipe().unwrap();
    assert_eq!(size(&pipe), None);
}

#[test]
fn a_plain_file_and_the_null_device_are_shared() {
    let null = File::open("/dev/null").unwrap();
    assert!(matches!(reopen(&null, Direction::Input).unwrap(), Stream::Shared(_)));
    let plain = File::open(std::env::current_exe().unwrap()).unwrap();
    assert!(matches!(reopen(&plain, Direction::Input).unwrap(), Stream::Shared(_)));
}

fn flags(fd: &impl AsFd) -> (libc::tcflag_t, libc::tcflag_t) {
    let mut termios = MaybeUninit::<libc::termios>::uninit();
    // SAFETY: the descriptor is open; `termios` is read only after tcgetattr has filled it in.
    let termios = unsafe {
        assert_eq!(libc::tcgetattr(fd.as_fd().as_raw_fd(), termios.as_mut_ptr()), 0);
        termios.assume_init()
    };
    (termios.c_lflag & (libc::ECHO | libc::ICANON | libc::ISIG), termios.c_oflag & libc::OPOST)
}

/// Set in the child that has a terminal of its own.
const CHILD: &str = "TOPHALF_TEST_RAW_MODE_CHILD";

#[test]
fn raw_mode_is_taken_back_by_drop_and_by_restore_now() {
    if std::env::var_os(CHILD).is_some() {
        return in_the_child();
    }
    // Raw mode is for the foreground process of a terminal, so a child gets one: this same test, run again.
    let (_master, slave) = pty();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "terminal::tests::raw_mode_is_taken_back_by_drop_and_by_restore_now"]);
    child.env(CHILD, "1").stdin(Stdio::from(slave)).stdout(Stdio::null());
    // SAFETY: between fork and exec only two async-signal-safe calls are made.
    unsafe {
        child.pre_exec(|| {
            check(libc::setsid())?;
            check(libc::ioctl(0, libc::TIOCSCTTY, 0)).map(drop)
        });
    }
    assert!(child.status().unwrap().success());
}

fn in_the_child() {
    let stdin = io::stdin();
    let cooked = flags(&stdin);
    assert_eq!(cooked, (libc::ECHO | libc::ICANON | libc::ISIG, libc::OPOST));
    let raw = (0, libc::OPOST);

    let guard = RawMode::enter(&stdin).unwrap().expect("we are in the foreground");
    assert_eq!(flags(&stdin), raw);
    assert_eq!(RawMode::enter(&stdin).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(flags(&stdin), raw);
    drop(guard);
    assert_eq!(flags(&stdin), cooked);

    let guard = RawMode::enter(&stdin).unwrap();
    assert_eq!(flags(&stdin), raw);
    restore_now();
    assert_eq!(flags(&stdin), cooked);
    drop(guard);
    assert_eq!(flags(&stdin), cooked);
}
