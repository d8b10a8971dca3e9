use std::io::Write;

use super::*;

/// Sends a signal to the calling thread, where it is blocked and so waits for the descriptor.
fn raise(signal: Signal) {
    // SAFETY: pthread_kill to the calling thread; the caller has blocked the signal.
    assert_eq!(unsafe { libc::pthread_kill(libc::pthread_self(), signal.number()) }, 0);
}

#[test]
fn each_signal_becomes_its_event_and_is_taken_once() {
    let mut fd = SignalFd::new().unwrap();
    assert_eq!(fd.read().unwrap(), None);
    for signal in Signal::ALL {
        raise(signal);
        assert_eq!(fd.read().unwrap(), Some(signal));
        assert_eq!(fd.read().unwrap(), None);
    }
}

#[test]
fn a_signal_that_is_not_asked_for_is_left_to_who_asks() {
    let mut screen = SignalFd::of(&Signal::OF_A_SCREEN).unwrap();
    for signal in [Signal::Window, Signal::HangUp] {
        raise(signal);
        assert_eq!(screen.read().unwrap(), Some(signal));
    }
    let mut machine = SignalFd::new().unwrap();
    raise(Signal::Power);
    assert_eq!(screen.read().unwrap(), None);
    assert_eq!(machine.read().unwrap(), Some(Signal::Power));
}

#[test]
fn several_signals_wait_side_by_side() {
    let mut fd = SignalFd::new().unwrap();
    raise(Signal::Terminate);
    raise(Signal::Interrupt);
    let got = [fd.read().unwrap(), fd.read().unwrap()];
    assert!(got.contains(&Some(Signal::Terminate)) && got.contains(&Some(Signal::Interrupt)));
    assert_eq!(fd.read().unwrap(), None);
}

#[test]
fn a_closed_pipe_is_an_error_and_not_the_end() {
    ignore_sigpipe();
    let (reader, mut writer) = io::pipe().unwrap();
    drop(reader);
    assert_eq!(writer.write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}
