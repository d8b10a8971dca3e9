//! Deadlines, places and alarms, on a system whose CPUs the test owns.

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};

use bottom_half::Vector;
use devices::{Alarm, TimedDevice};
use irqchip::mailbox::Mailbox;
use parking_lot::Mutex;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use x86::Nanos;

use super::*;

const HOUR: u64 = 3_600_000_000_000;
/// Milliseconds after which something will not come any more.
const LIMIT: i32 = 30_000;

/// Whether the descriptor becomes readable within `ms`.
fn readable(fd: &impl AsRawFd, ms: i32) -> bool {
    let epoll = Epoll::new().expect("an epoll");
    epoll.ctl(ControlOperation::Add, fd.as_raw_fd(), EpollEvent::new(EventSet::IN, 0)).expect("it can be watched");
    epoll.wait(ms, &mut [EpollEvent::default()]).expect("a wait") > 0
}

fn in_an_hour() -> u64 {
    sys::clock::monotonic_ns() + HOUR
}

#[test]
fn only_what_is_due_is_taken_and_only_once() {
    let deadlines = Deadlines::new(3).expect("a timerfd");
    let hour = in_an_hour();
    for (cpu, at) in [(0, hour + 30), (1, hour + 10), (2, hour + 20)] {
        deadlines.set(cpu, Some(at));
    }
    assert_eq!(deadlines.take_due(hour + 9), 0);
    assert_eq!(deadlines.take_due(hour + 10), 0b010);
    assert_eq!(deadlines.take_due(hour + 10), 0);
    assert_eq!(deadlines.take_due(hour + 30), 0b101);
    assert_eq!(deadlines.take_due(u64::MAX), 0);
}

#[test]
fn a_new_deadline_replaces_the_old_one() {
    let deadlines = Deadlines::new(2).expect("a timerfd");
    let hour = in_an_hour();
    deadlines.set(0, Some(hour + 10));
    deadlines.set(1, Some(hour + 10));
    deadlines.set(0, Some(hour + 20));
    deadlines.set(1, None);
    assert_eq!(deadlines.take_due(hour + 19), 0);
    assert_eq!(deadlines.take_due(hour + 20), 0b01);
    deadlines.set(0, Some(hour + 40));
    deadlines.set(0, Some(hour + 30));
    assert_eq!(deadlines.take_due(hour + 30), 0b01, "earlier, too");
}

#[test]
fn the_timer_is_set_for_the_earliest() {
    let deadlines = Deadlines::new(2).expect("a timerfd");
    deadlines.set(0, Some(in_an_hour()));
    assert!(!readable(&*deadlines, 0));
    deadlines.set(1, Some(0));
    assert!(readable(&*deadlines, LIMIT), "an earlier one sets it anew, and the past is now");
    assert_eq!(deadlines.take_due(1), 0b10);
    deadlines.settle();
    assert!(!readable(&*deadlines, 0), "settling takes the readiness");
    deadlines.set(0, Some(0));
    assert!(readable(&*deadlines, LIMIT));
}

/// A vCPU's thread sets the next deadline between the main loop's look and the end of its turn.
#[test]
fn a_deadline_that_is_set_while_others_are_served_is_not_lost() {
    let deadlines = Deadlines::new(2).expect("a timerfd");
    deadlines.set(0, Some(0));
    assert!(readable(&*deadlines, LIMIT));
    assert_eq!(deadlines.take_due(1), 0b01);
    deadlines.set(1, Some(1));
    deadlines.settle();
    assert!(readable(&*deadlines, LIMIT));
    assert_eq!(deadlines.take_due(1), 0b10);
}

#[test]
fn a_deadline_that_was_put_off_or_cancelled_costs_one_early_look() {
    let deadlines = Deadlines::new(1).expect("a timerfd");
    for later in [Some(in_an_hour()), None] {
        deadlines.set(0, Some(0));
        deadlines.set(0, later);
        assert!(readable(&*deadlines, LIMIT), "the timer was left as it was");
        assert_eq!(deadlines.take_due(1), 0, "but nothing is due");
        deadlines.settle();
        assert!(!readable(&*deadlines, 0), "and now it is set right");
    }
    deadlines.set(0, Some(0));
    assert!(readable(&*deadlines, LIMIT));
    assert_eq!(deadlines.take_due(1), 1);
}

/// Two vCPUs and the main loop, none of which runs by itself.
fn machine(choices: &[&str]) -> (BottomHalves, Owners, Arc<Processors>, Arc<Stopper>) {
    let processors = Processors::new((0..2).map(|_| Mailbox::default()).collect());
    let doorbell = Doorbell::new().expect("an eventfd");
    let stopper = Stopper::new(Arc::clone(&doorbell));
    let places = Places::parse(choices).expect("good choices");
    let (bottom_halves, owners) =
        BottomHalves::new(Clock::start(), Arc::clone(&processors), &doorbell, &stopper, places).expect("threads");
    (bottom_halves, owners, processors, stopper)
}

/// A turn of the main loop when its timer has gone off.
fn turn(owners: &Owners) {
    assert!(readable(&*owners.deadlines, LIMIT));
    let due = owners.deadlines.take_due(sys::clock::monotonic_ns());
    assert_eq!(due, 0b100, "the main loop's is the last CPU");
    owners.main_loop.top_half(|top| owners.main_loop.expire(top));
    owners.deadlines.settle();
}

/// A device that counts its expiries.
struct Counting {
    expired: Arc<AtomicU64>,
    alarm: Arc<dyn Alarm>,
}

impl TimedDevice for Counting {
    fn expire(&mut self, now: Nanos) {
        assert!(now > 0);
        if self.expired.fetch_add(1, Ordering::AcqRel) == 0 {
            self.alarm.arm(Some(now));
        }
    }
}

fn counting(bottom_halves: &BottomHalves) -> (Arc<Mutex<Counting>>, Arc<AtomicU64>) {
    let expired = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&expired);
    (bottom_halves.timed(Device::Rtc, |alarm| Counting { expired: count, alarm }), expired)
}

fn run_by(bottom_halves: &BottomHalves, vector: Vector) -> u64 {
    bottom_halves.system().cpu_stats()[2].run[vector as usize]
}

#[test]
fn a_device_expires_from_hrtimer_and_arms_again_from_there() {
    let (bottom_halves, owners, ..) = machine(&[]);
    let (device, expired) = counting(&bottom_halves);
    device.lock().alarm.arm(Some(0));
    turn(&owners);
    // Armed for a time that has passed: the next round, without a turn of the loop.
    assert_eq!((expired.load(Ordering::Acquire), run_by(&bottom_halves, Vector::HrTimer)), (2, 2));
    assert!(!readable(&*owners.deadlines, 0), "nothing is armed: nothing ticks");
    bottom_halves.system().shutdown(None).expect("nothing is stuck");
}

#[test]
fn a_device_expires_in_a_tasklet_that_its_timer_schedules() {
    let (bottom_halves, owners, ..) = machine(&["rtc=tasklet"]);
    let (device, expired) = counting(&bottom_halves);
    device.lock().alarm.arm(Some(0));
    turn(&owners);
    assert_eq!(expired.load(Ordering::Acquire), 1);
    assert_eq!((run_by(&bottom_halves, Vector::HrTimer), run_by(&bottom_halves, Vector::Tasklet)), (1, 1));
    bottom_halves.system().shutdown(None).expect("nothing is stuck");
}

#[test]
fn a_device_expires_in_a_work_queue_that_its_timer_fills() {
    let (bottom_halves, owners, ..) = machine(&["rtc=workqueue"]);
    let (device, expired) = counting(&bottom_halves);
    device.lock().alarm.arm(Some(0));
    turn(&owners);
    // Arming again from the work item is what ends it.
    turn(&owners);
    let queued = || bottom_halves.system().queue_stats().iter().find(|queue| queue.name == "rtc").map(|q| q.queued);
    assert_eq!(queued(), Some(2));
    assert!(expired.load(Ordering::Acquire) >= 1);
    bottom_halves.system().shutdown(None).expect("nothing is stuck");
}

#[test]
fn an_alarm_does_not_keep_its_device_alive() {
    for place in ["softirq", "tasklet", "workqueue"] {
        let (bottom_halves, _owners, ..) = machine(&[&format!("rtc={place}")]);
        let (device, _) = counting(&bottom_halves);
        device.lock().alarm.arm(Some(0));
        let weak = Arc::downgrade(&device);
        drop(device);
        assert_eq!(weak.strong_count(), 0, "{place}");
        bottom_halves.system().shutdown(None).expect("nothing is stuck");
    }
}

#[test]
fn what_is_raised_on_a_vcpus_cpu_wakes_the_vcpu() {
    let (bottom_halves, owners, processors, _) = machine(&[]);
    let runs = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&runs);
    assert!(bottom_halves.system().set_handler(Vector::Block, move |_| _ = count.fetch_add(1, Ordering::AcqRel)));
    assert!(processors.mailbox(1).halt());
    bottom_halves.system().cpus()[1].raise(Vector::Block);
    let events = processors.mailbox(1).take(|_, _, _| panic!("no interrupt was sent"));
    assert!(events.deferred && !events.attention);
    assert!(!processors.mailbox(0).is_pending());
    owners.vcpus[1].top_half(|top| owners.vcpus[1].expire(top));
    assert_eq!(runs.load(Ordering::Acquire), 1);
    bottom_halves.system().shutdown(None).expect("nothing is stuck");
}

/// A vCPU has no descriptor to wait with: the main loop's timer goes off for it.
#[test]
fn a_vcpus_timer_is_waited_for_by_the_main_loop() {
    let (bottom_halves, owners, ..) = machine(&[]);
    let ran = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&ran);
    let timer = bottom_half::Timer::precise(&bottom_halves.system().cpus()[1], move |_| {
        count.fetch_add(1, Ordering::AcqRel);
        None
    });
    timer.start(1);
    assert!(readable(&*owners.deadlines, LIMIT));
    assert_eq!(owners.deadlines.take_due(sys::clock::monotonic_ns()), 0b010);
    owners.vcpus[1].top_half(|top| owners.vcpus[1].expire(top));
    owners.deadlines.settle();
    assert_eq!(ran.load(Ordering::Acquire), 1);
    bottom_halves.system().shutdown(None).expect("nothing is stuck");
}

/// A panic on a thread that is no vCPU's left the machine running without its devices.
#[test]
fn a_bottom_half_that_panics_stops_the_machine() {
    let (bottom_halves, owners, _, stopper) = machine(&[]);
    let alarm = bottom_halves.alarm(|_| panic!("on purpose"));
    alarm.arm(Some(0));
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| turn(&owners)));
    assert!(caught.is_err());
    assert!(matches!(stopper.take_reason(), StopReason::Panic));
}

#[test]
fn shutting_down_says_who_would_not_stop_and_does_not_hang() {
    let (bottom_halves, ..) = machine(&[]);
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (entered, has_entered) = std::sync::mpsc::channel();
    let wait = Mutex::new(wait);
    let work = bottom_halves.system().shared_queue().work(move |_| {
        entered.send(()).expect("somebody waits for it");
        wait.lock().recv().expect_err("the other end is dropped");
    });
    assert_eq!(work.queue(), bottom_half::Queued::Yes);
    has_entered.recv().expect("it runs");
    let stuck = bottom_halves.system().shutdown(Some(Duration::ZERO)).expect_err("one is stuck");
    assert!(stuck.to_string().contains("shutting_down_says_who"), "{stuck}");
    drop(go);
    bottom_halves.system().shutdown(None).expect("nothing is stuck any more");
}

#[test]
fn a_choice_is_taken_and_the_last_one_counts() {
    let places = Places::parse(&["serial=inline", "pit=tasklet", "serial=workqueue"]).expect("good choices");
    assert_eq!(places.of(Device::Serial), Place::Workqueue);
    assert_eq!(places.of(Device::Pit), Place::Tasklet);
    assert_eq!(places.of(Device::Rtc), Place::Softirq, "the default");
    assert_eq!(Places::parse::<&str>(&[]).expect("none"), Places::default());
}

#[test]
fn a_refused_choice_lists_what_is_allowed() {
    let refusal = |choice: &str| match Places::parse(&[choice]) {
        Err(Error::Usage(line)) => line,
        other => panic!("{choice}: {other:?}"),
    };
    assert_eq!(
        refusal("hpet=inline"),
        "hpet can't run its bottom half in \"inline\"; give --bottom-half hpet= one of softirq, tasklet, workqueue"
    );
    assert!(refusal("serial=thread").ends_with("serial= one of tasklet, inline, softirq, workqueue"));
    assert_eq!(
        refusal("blk=inline"),
        "blk can't run its bottom half in \"inline\"; give --bottom-half blk= one of workqueue, softirq, tasklet"
    );
    assert!(refusal("net=inline").ends_with("net= one of softirq, tasklet, workqueue"));
    assert!(refusal("i8042=tasklet").contains("one of serial, pit, rtc, hpet"));
    assert!(refusal("serial").contains("give --bottom-half DEVICE=PLACE"));
    assert!(refusal("").contains("give --bottom-half DEVICE=PLACE"));
}

#[test]
fn every_device_allows_its_default_and_each_place_once() {
    for device in Device::ALL {
        let mut names: Vec<_> = device.places().iter().map(|place| place.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), device.places().len(), "{device:?}");
        for place in device.places() {
            let places = Places::parse(&[format!("{}={}", device.name(), place.name())]).expect("allowed");
            assert_eq!(places.of(device), *place);
        }
    }
}
