//! The doorbell, and the loop with its bottom halves and a console on pipes. Waits are for a descriptor, with a limit.

use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use bottom_half::Vector;
use devices::{BusDevice, Pm, Serial};
use irqchip::lapic::{Config, LocalApic};
use irqchip::line::{LineTarget, Wire};
use parking_lot::Mutex;
use sys::terminal::{Direction, Stream, reopen};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent};
use x86::Nanos;
use x86::ioapic::{IOREGSEL, IOWIN, REG_TABLE};

use super::*;
use crate::bottom_halves::{BottomHalves, Device, Owners, Places, SerialWork};
use crate::clock::Clock;
use crate::console::{Port, Reply};
use crate::interrupts::{Interrupts, IoApicWindow};
use crate::io_bus::Handler;

const HOUR: Nanos = 3_600_000_000_000;
/// The serial port's.
const IRQ: u8 = 4;
/// Milliseconds after which something will not come any more.
const LIMIT: i32 = 30_000;

/// Whether the descriptor becomes readable within `ms`.
fn readable(fd: &impl AsRawFd, ms: i32) -> bool {
    let epoll = Epoll::new().expect("an epoll");
    epoll.ctl(ControlOperation::Add, fd.as_raw_fd(), EpollEvent::new(EventSet::IN, 0)).expect("it can be watched");
    epoll.wait(ms, &mut [EpollEvent::default()]).expect("a wait") > 0
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
    doorbell.ring(Request::Serial);
    assert!(readable(&*doorbell, 0), "rings again after a take");
    assert!(doorbell.take().contains(Request::Serial));
}

struct Nobody;

impl LineTarget for Nobody {
    fn set_level(&self, _gsi: u8, _level: bool) {}
}

/// A loop's surroundings: the user's side of the console, the guest's serial port, and how to end it.
struct Setup {
    doorbell: Arc<Doorbell>,
    stopper: Arc<Stopper>,
    bottom_halves: BottomHalves,
    owners: Owners,
    drain: Arc<Drain>,
    serial_work: Arc<SerialWork>,
    inline: Vec<Arc<Inline>>,
    serial: Arc<Mutex<Serial>>,
    keyboard: PipeWriter,
    screen: PipeReader,
    console: Console,
    power_button: PowerButton,
    processors: Arc<Processors>,
}

fn setup() -> Setup {
    setup_in("tasklet")
}

/// With the serial port's bottom half in this place.
fn setup_in(place: &str) -> Setup {
    setup_with(Processors::new(Arc::new([])), Arc::new(Nobody), place)
}

/// With these vCPUs, which the serial port interrupts by way of `chips`.
fn setup_with(processors: Arc<Processors>, chips: Arc<dyn LineTarget>, place: &str) -> Setup {
    let file = |end: OwnedFd, direction| -> File {
        match reopen(&end, direction).expect("a pipe can be opened again") {
            Stream::NonBlocking(file) | Stream::Shared(file) => file,
        }
    };
    let clock = Clock::start();
    let doorbell = Doorbell::new().expect("an eventfd");
    let stopper = Stopper::new(Arc::clone(&doorbell));
    let places = Places::parse(&[format!("serial={place}")]).expect("a good place");
    let (bottom_halves, owners) =
        BottomHalves::new(clock, Arc::clone(&processors), &doorbell, &stopper, places).expect("threads");
    let drain = Drain::new(&doorbell);
    let mut inline = Vec::new();
    let serial_work = SerialWork::new(&bottom_halves, &drain, &doorbell, &mut inline);
    let serial = Serial::new(Wire::new(IRQ, chips).holder(), Arc::clone(&serial_work) as _);
    let serial = Arc::new(Mutex::new(serial));
    let (input, keyboard) = pipe().expect("a pipe");
    let (screen, output) = pipe().expect("a pipe");
    let (input, output) = (file(input.into(), Direction::Input), file(output.into(), Direction::Output));
    let pm = bottom_halves
        .timed(Device::Pm, |alarm| Pm::new(Wire::new(9, Arc::new(Nobody)).holder(), alarm, stopper.clone()));
    Setup {
        stopper,
        power_button: PowerButton::new(clock, pm),
        console: Console::on_files(Port::new(Arc::clone(&serial), Arc::clone(&processors)), input, output),
        processors,
        bottom_halves,
        owners,
        drain,
        serial_work,
        inline,
        doorbell,
        serial,
        keyboard,
        screen,
    }
}

impl Setup {
    /// The user's side, and the loop to run.
    fn run(self, user: impl FnOnce(PipeWriter, PipeReader) + Send, report: impl Fn()) -> StopReason {
        self.run_and_look(user, report, drop)
    }

    /// The same, with a look at the console that the loop gives back.
    fn run_and_look(
        self,
        user: impl FnOnce(PipeWriter, PipeReader) + Send,
        report: impl Fn(),
        look: impl FnOnce(Console),
    ) -> StopReason {
        drop(self.serial);
        let mut signals = SignalFd::new().expect("a signalfd");
        let books = Books::of_parts(&self.processors, None, self.bottom_halves.system());
        let serial_work = self.serial_work;
        let main_loop = MainLoop {
            stats: Stats { books, write: None, server: None },
            processors: self.processors,
            owner: self.owners.main_loop,
            deadlines: self.owners.deadlines,
            doorbell: self.doorbell,
            guest_doorbells: None,
            consoles: vec![ConsolePlace { drain: self.drain, run_soon: Box::new(move || serial_work.run_soon()) }],
            inline: self.inline,
            signals: &mut signals,
            report: Box::new(report),
            power_button: self.power_button,
            commands: Box::new(|_| Reply::default()),
            reboots: true,
            stopper: Arc::clone(&self.stopper),
        };
        let console = self.console;
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
            look(main_loop.run(vec![console]).expect("the loop runs").remove(0));
            ended.send(()).expect("somebody waits for it");
        });
        self.bottom_halves.system().shutdown(None).expect("nothing of it is stuck");
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
    let stopper = Arc::clone(&t.stopper);
    let first = t.bottom_halves.alarm(|_| panic!("not due for an hour"));
    let second = t.bottom_halves.alarm(move |now| stopper.stop(StopReason::DebugExit(u8::from(now > 0))));
    first.arm(Some(HOUR));
    second.arm(Some(0));
    let bottom_halves = t.bottom_halves.clone();
    let reason = t.run(|_keyboard, _screen| {}, || {});
    assert!(matches!(reason, StopReason::DebugExit(1)));
    let runs = bottom_halves.system().cpu_stats()[0].run[Vector::HrTimer as usize];
    assert_eq!(runs, 1, "from HRTIMER, once");
}

#[test]
fn a_stop_from_another_thread_ends_the_loop_and_has_the_vcpus_look_up() {
    let t = setup();
    let stopper = Arc::clone(&t.stopper);
    let looked = Arc::new(Mutex::new(0));
    let count = Arc::clone(&looked);
    let reason = t.run(move |_, _| stopper.stop(StopReason::PowerOff), move || *count.lock() += 1);
    assert!(matches!(reason, StopReason::PowerOff));
    assert_eq!(*looked.lock(), 1);
}

#[test]
fn what_the_user_types_reaches_the_guest_and_its_answer_the_screen() {
    for place in ["tasklet", "softirq", "inline", "workqueue"] {
        an_answer_comes_with_the_bottom_half_in(place);
    }
}

fn an_answer_comes_with_the_bottom_half_in(place: &str) {
    let t = setup_in(place);
    let (stopper, serial, inline) = (Arc::clone(&t.stopper), Arc::clone(&t.serial), t.inline.clone());
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
        // As a vCPU does after its exit.
        inline.iter().for_each(|inline| inline.run());
        screen.read_exact(&mut byte).expect("the screen shows it");
        stopper.stop(StopReason::DebugExit(byte[0]));
    };
    assert!(matches!(t.run(user, || {}), StopReason::DebugExit(b'K')));
}

/// Where another thread wrote the last of it, nothing told the loop, which waited for ever.
#[test]
fn the_last_output_is_written_before_the_loop_ends() {
    for place in ["tasklet", "softirq", "inline", "workqueue"] {
        the_last_output_is_written_with_the_bottom_half_in(place);
    }
}

fn the_last_output_is_written_with_the_bottom_half_in(place: &str) {
    let t = setup_in(place);
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
    assert!(matches!(t.run(user, || {}), StopReason::Quit));
    assert!(kept.lock().is_some(), "nobody has read or closed the screen");
}

/// A vCPU, asleep, that the serial port interrupts.
fn one_asleep() -> Arc<Interrupts> {
    let config = Config { id: 0, bsp: true, x2apic: true, tsc_deadline: true, cmci: false, physical_bits: 40 };
    let mut apic = LocalApic::new(config);
    let _ = apic.enter_virtual_wire_mode();
    let interrupts = Arc::new(Interrupts::new(Clock::start(), 0, vec![apic.address()]));
    let window = IoApicWindow(Arc::clone(&interrupts));
    window.write(0, IOREGSEL, &[REG_TABLE + 2 * IRQ]);
    window.write(0, IOWIN, &0x51_u32.to_le_bytes());
    assert!(interrupts.mailbox(0).halt());
    interrupts
}

/// Whoever posts while a kick is owed relies on that kick: the loop owed it as long as its write took.
#[test]
fn a_kick_does_not_wait_for_the_screen() {
    for place in ["tasklet", "softirq", "inline", "workqueue"] {
        a_kick_does_not_wait_with_the_bottom_half_in(place);
    }
}

fn a_kick_does_not_wait_with_the_bottom_half_in(place: &str) {
    let interrupts = one_asleep();
    let t = setup_with(Arc::clone(interrupts.processors()), Arc::clone(&interrupts) as _, place);
    // A screen that blocks whoever writes: its flags are another program's, so that it can't be made not to.
    let (screen, output) = pipe().expect("a pipe");
    let Stream::NonBlocking(mut filler) = reopen(&output, Direction::Output).expect("a pipe can be opened again")
    else {
        panic!("a pipe can be made non-blocking")
    };
    while filler.write(&[b'.'; 4096]).is_ok() {}
    drop(filler);
    let (input, mut keyboard) = pipe().expect("a pipe");
    let port = Port::new(Arc::clone(&t.serial), Arc::clone(&t.processors));
    let mut console = Console::on_files(port, File::from(OwnedFd::from(input)), File::from(OwnedFd::from(output)));
    // Something is typed for the guest, which has it with an interrupt, and has said something.
    keyboard.write_all(b"k").expect("room in the pipe");
    assert!(!console.read_input(&mut |_| Reply::default()));
    t.serial.lock().write(0, 4, &[0x0b]);
    t.serial.lock().write(0, 1, &[0x01]);
    assert!(guest_sends(&t.serial) > 0);
    assert!(!interrupts.mailbox(0).is_pending());

    let (stopper, processors) = (Arc::clone(&t.stopper), Arc::clone(&t.processors));
    let t = Setup { console, keyboard, screen, ..t };
    let user = move |_keyboard: PipeWriter, mut screen: PipeReader| {
        while !interrupts.mailbox(0).is_pending() {
            thread::yield_now();
        }
        processors.attention(0);
        // It comes to nothing, and the limit ends the test, if the loop still owes the interrupt's kick.
        let (word, asleep) = interrupts.mailbox(0).futex();
        while word.load(Ordering::Relaxed) == asleep {
            thread::yield_now();
        }
        stopper.stop(StopReason::PowerOff);
        screen.read_to_end(&mut Vec::new()).expect("the screen shows it");
    };
    assert!(matches!(t.run(user, || {}), StopReason::PowerOff));
}

/// The console of a machine that reset kept all of it, memory too, while the next one was made.
#[test]
fn the_console_keeps_nothing_of_the_machine() {
    let t = setup();
    let port = Arc::downgrade(&t.serial);
    t.stopper.stop(StopReason::Reset);
    let reason = t.run_and_look(|_, _| {}, || {}, |_console| assert_eq!(port.strong_count(), 0));
    assert!(matches!(reason, StopReason::Reset));
}

/// A reset waited for a reader who had stopped reading, without limit.
#[test]
fn a_reset_does_not_wait_for_the_screen() {
    let t = setup();
    let mut sent = guest_sends(&t.serial);
    let mut console = t.console;
    while console.serve() {}
    sent += guest_sends(&t.serial);
    while console.serve() {}
    assert!(console.has_output(), "more than the pipe holds");
    let t = Setup { console, ..t };
    t.stopper.stop(StopReason::Reset);
    let (keep, kept) = mpsc::channel();
    let mut left = None;
    let user = move |keyboard, screen| keep.send((keyboard, screen)).expect("somebody waits for it");
    let reason = t.run_and_look(user, || {}, |console| left = Some(console));
    assert!(matches!(reason, StopReason::Reset));

    // The next machine says nothing, and the user reads again.
    let t = setup();
    let mut console = left.expect("given back");
    assert!(console.has_output());
    console.attach(Port::new(Arc::clone(&t.serial), Arc::clone(&t.processors)));
    let (keyboard, screen) = kept.recv().expect("kept");
    let (stopper, t) = (Arc::clone(&t.stopper), Setup { console, keyboard, screen, ..t });
    let user = move |_keyboard: PipeWriter, mut screen: PipeReader| {
        screen.read_exact(&mut vec![0; sent]).expect("all of it");
        stopper.stop(StopReason::PowerOff);
    };
    assert!(matches!(t.run(user, || {}), StopReason::PowerOff));
}
