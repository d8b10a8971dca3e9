//! Alarms, the doorbell, and the loop with a console on pipes. Waits are for a descriptor, with a limit.

use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::OwnedFd;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use devices::{Alarm, BusDevice, Later, Serial};
use irqchip::line::{LineTarget, Wire};
use parking_lot::Mutex;
use sys::terminal::{Direction, Stream, reopen};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent};

use super::*;

const HOUR: Nanos = 3_600_000_000_000;
/// Milliseconds after which something will not come any more.
const LIMIT: i32 = 30_000;

/// Whether the descriptor becomes readable within `ms`.
fn readable(fd: &impl AsRawFd, ms: i32) -> bool {
    let epoll = Epoll::new().expect("an epoll");
    epoll.ctl(ControlOperation::Add, fd.as_raw_fd(), EpollEvent::new(EventSet::IN, 0)).expect("it can be watched");
    epoll.wait(ms, &mut [EpollEvent::default()]).expect("a wait") > 0
}

fn alarms(slots: usize) -> (Arc<Alarms>, Vec<Arc<dyn Alarm>>) {
    let alarms = Alarms::new(Clock::start()).expect("a timerfd");
    let slots = (0..slots).map(|_| alarms.slot()).collect();
    (alarms, slots)
}

#[test]
fn only_what_is_due_is_taken_and_only_once() {
    let (alarms, slots) = alarms(3);
    slots[0].arm(Some(HOUR + 30));
    slots[1].arm(Some(HOUR + 10));
    slots[2].arm(Some(HOUR + 20));
    assert_eq!(alarms.take_due(HOUR + 9), 0);
    assert_eq!(alarms.take_due(HOUR + 10), 0b010);
    assert_eq!(alarms.take_due(HOUR + 10), 0);
    assert_eq!(alarms.take_due(HOUR + 30), 0b101);
    assert_eq!(alarms.take_due(Nanos::MAX), 0);
}

#[test]
fn a_new_deadline_replaces_the_old_one() {
    let (alarms, slots) = alarms(2);
    slots[0].arm(Some(HOUR + 10));
    slots[1].arm(Some(HOUR + 10));
    slots[0].arm(Some(HOUR + 20));
    slots[1].arm(None);
    assert_eq!(alarms.take_due(HOUR + 19), 0);
    assert_eq!(alarms.take_due(HOUR + 20), 0b01);
    slots[0].arm(Some(HOUR + 40));
    slots[0].arm(Some(HOUR + 30));
    assert_eq!(alarms.take_due(HOUR + 30), 0b01, "earlier, too");
}

#[test]
fn the_timer_is_set_for_the_earliest() {
    let (alarms, slots) = alarms(2);
    slots[0].arm(Some(HOUR));
    assert!(!readable(&*alarms, 0));
    slots[1].arm(Some(0));
    assert!(readable(&*alarms, LIMIT), "an earlier one sets it anew, and the past is now");
    assert_eq!(alarms.take_due(1), 0b10);
    assert!(!readable(&*alarms, 0), "taking what is due takes the readiness, too");
    slots[0].arm(Some(0));
    assert!(readable(&*alarms, LIMIT));
}

#[test]
fn a_deadline_that_was_put_off_or_cancelled_costs_one_early_look() {
    let (alarms, slots) = alarms(1);
    for later in [Some(HOUR), None] {
        slots[0].arm(Some(0));
        slots[0].arm(later);
        assert!(readable(&*alarms, LIMIT), "the timer was left as it was");
        assert_eq!(alarms.take_due(1), 0, "but nothing is due");
        assert!(!readable(&*alarms, 0), "and now it is set right");
    }
    slots[0].arm(Some(0));
    assert!(readable(&*alarms, LIMIT));
    assert_eq!(alarms.take_due(1), 1);
}

#[test]
fn requests_merge_until_they_are_taken() {
    let doorbell = Doorbell::new().expect("an eventfd");
    assert!(!readable(&*doorbell, 0));
    doorbell.ring(Request::Serial);
    doorbell.ring(Request::Serial);
    doorbell.ring(Request::Stop);
    assert!(readable(&*doorbell, 0));
    let requests = doorbell.take();
    assert!(requests.contains(Request::Serial) && requests.contains(Request::Stop));
    assert!(!readable(&*doorbell, 0), "one take for all");
    let requests = doorbell.take();
    assert!(!requests.contains(Request::Serial) && !requests.contains(Request::Stop));
    SerialLater(Arc::clone(&doorbell)).schedule();
    assert!(readable(&*doorbell, 0), "rings again after a take");
    assert!(doorbell.take().contains(Request::Serial));
}

struct Nobody;

impl LineTarget for Nobody {
    fn set_level(&self, _gsi: u8, _level: bool) {}
}

/// A loop's surroundings: the user's side of the console, the guest's serial port, and how to end it.
struct Setup {
    clock: Clock,
    alarms: Arc<Alarms>,
    doorbell: Arc<Doorbell>,
    stopper: Arc<Stopper>,
    serial: Arc<Mutex<Serial>>,
    keyboard: PipeWriter,
    screen: PipeReader,
    console: Console,
}

fn setup() -> Setup {
    let file = |end: OwnedFd, direction| -> File {
        match reopen(&end, direction).expect("a pipe can be opened again") {
            Stream::NonBlocking(file) | Stream::Shared(file) => file,
        }
    };
    let doorbell = Doorbell::new().expect("an eventfd");
    let later = Arc::new(SerialLater(Arc::clone(&doorbell)));
    let serial = Arc::new(Mutex::new(Serial::new(Wire::new(4, Arc::new(Nobody)).holder(), later)));
    let (input, keyboard) = pipe().expect("a pipe");
    let (screen, output) = pipe().expect("a pipe");
    let (input, output) = (file(input.into(), Direction::Input), file(output.into(), Direction::Output));
    let clock = Clock::start();
    Setup {
        clock,
        alarms: Alarms::new(clock).expect("a timerfd"),
        stopper: Stopper::new(Arc::clone(&doorbell)),
        console: Console::new(Arc::clone(&serial), input, output, true),
        doorbell,
        serial,
        keyboard,
        screen,
    }
}

impl Setup {
    /// The user's side, and the loop to run.
    fn run(
        self,
        expire: Vec<Expire>,
        user: impl FnOnce(PipeWriter, PipeReader) + Send,
        report: impl Fn(),
    ) -> StopReason {
        let mut signals = SignalFd::new().expect("a signalfd");
        let main_loop = MainLoop {
            clock: self.clock,
            alarms: self.alarms,
            expire,
            doorbell: self.doorbell,
            console: self.console,
            signals: &mut signals,
            report: Box::new(report),
            stopper: Arc::clone(&self.stopper),
        };
        thread::scope(|scope| {
            scope.spawn(move || user(self.keyboard, self.screen));
            let (ended, has_ended) = mpsc::channel();
            scope.spawn(move || {
                if has_ended.recv_timeout(Duration::from_millis(LIMIT as u64)).is_err() {
                    // Nothing that a test could do would end it.
                    eprintln!("the main loop does not end");
                    std::process::abort();
                }
            });
            main_loop.run().expect("the loop runs");
            ended.send(()).expect("somebody waits for it");
        });
        self.stopper.take_reason()
    }
}

/// The guest sends as much as its port takes; how much that was.
fn guest_sends(serial: &Mutex<Serial>) -> usize {
    let mut serial = serial.lock();
    (0usize..)
        .take_while(|_| {
            let mut status = [0];
            serial.read(0, 5, &mut status);
            let ready = status[0] & 0x20 != 0;
            if ready {
                serial.write(0, 0, b"x");
            }
            ready
        })
        .count()
}

#[test]
fn an_alarm_calls_its_device_and_no_other() {
    let t = setup();
    let (first, second) = (t.alarms.slot(), t.alarms.slot());
    first.arm(Some(HOUR));
    second.arm(Some(0));
    let stopper = Arc::clone(&t.stopper);
    let expire: Vec<Expire> = vec![
        Box::new(|_| panic!("not due for an hour")),
        Box::new(move |now| stopper.stop(StopReason::DebugExit(u8::from(now > 0)))),
    ];
    let reason = t.run(expire, |_keyboard, _screen| {}, || {});
    assert!(matches!(reason, StopReason::DebugExit(1)));
}

#[test]
fn a_stop_from_another_thread_ends_the_loop_and_has_the_vcpus_look_up() {
    let t = setup();
    let stopper = Arc::clone(&t.stopper);
    let looked = Arc::new(Mutex::new(0));
    let count = Arc::clone(&looked);
    let reason = t.run(vec![], move |_, _| stopper.stop(StopReason::PowerOff), move || *count.lock() += 1);
    assert!(matches!(reason, StopReason::PowerOff));
    assert_eq!(*looked.lock(), 1);
}

#[test]
fn what_the_user_types_reaches_the_guest_and_its_answer_the_screen() {
    let t = setup();
    let (stopper, serial) = (Arc::clone(&t.stopper), Arc::clone(&t.serial));
    serial.lock().write(0, 4, &[0x0b]);
    let user = move |mut keyboard: PipeWriter, mut screen: PipeReader| {
        keyboard.write_all(b"k").expect("room in the pipe");
        // The guest polls its port, as early kernels do.
        let mut status = [0];
        while status[0] & 1 == 0 {
            thread::yield_now();
            serial.lock().read(0, 5, &mut status);
        }
        let mut byte = [0];
        serial.lock().read(0, 0, &mut byte);
        serial.lock().write(0, 0, &[byte[0].to_ascii_uppercase()]);
        screen.read_exact(&mut byte).expect("the screen shows it");
        stopper.stop(StopReason::DebugExit(byte[0]));
    };
    assert!(matches!(t.run(vec![], user, || {}), StopReason::DebugExit(b'K')));
}

#[test]
fn the_last_output_is_written_before_the_loop_ends() {
    let t = setup();
    let mut sent = guest_sends(&t.serial);
    // The pipe takes the first of it.
    let mut console = t.console;
    while console.serve() {}
    sent += guest_sends(&t.serial);
    assert!(console.has_output(), "more than the pipe holds");
    let t = Setup { console, ..t };
    t.stopper.stop(StopReason::PowerOff);
    let shown = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&shown);
    let reason = t.run(
        vec![],
        move |_keyboard, mut screen| {
            screen.read_to_end(&mut seen.lock()).expect("the screen shows it");
        },
        || {},
    );
    assert!(matches!(reason, StopReason::PowerOff));
    assert_eq!(shown.lock().len(), sent);
}

/// A user who quits need not wait for a screen that shows nothing any more.
#[test]
fn quitting_does_not_wait_for_output() {
    let t = setup();
    guest_sends(&t.serial);
    let mut console = t.console;
    while console.serve() {}
    guest_sends(&t.serial);
    let t = Setup { console, ..t };
    let kept = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&kept);
    let user = move |mut keyboard: PipeWriter, screen: PipeReader| {
        keyboard.write_all(b"\x01x").expect("room in the pipe");
        *keep.lock() = Some((keyboard, screen));
    };
    assert!(matches!(t.run(vec![], user, || {}), StopReason::Quit));
    assert!(kept.lock().is_some(), "nobody has read or closed the screen");
}
