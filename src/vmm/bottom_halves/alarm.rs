//! A device's deadline: a timer of the main loop's CPU, and behind it the place where the device's slow part runs.

use std::sync::{Arc, Weak};

use bottom_half::{Cpu, QueueKind, Softirq, Timer};
use devices::{Alarm, TimedDevice};
use parking_lot::Mutex;
use x86::Nanos;

use super::{BottomHalves, Device, Place};
use crate::clock::Clock;

/// What a timer runs.
type Function = Box<dyn Fn(&Softirq<'_>) -> Option<u64> + Send + Sync>;
/// Makes a timer of one kind.
type MakeTimer = fn(&Arc<Cpu>, Function) -> Timer;

/// The timer.
struct TimerAlarm {
    timer: Timer,
    clock: Clock,
}

impl Alarm for TimerAlarm {
    fn arm(&self, at: Option<Nanos>) {
        match at {
            Some(at) => self.timer.start(self.clock.host(at)),
            None => self.timer.cancel(),
        };
    }
}

impl BottomHalves {
    /// An alarm that calls `expire` straight from HRTIMER.
    pub fn alarm(&self, expire: impl Fn(Nanos) + Send + Sync + 'static) -> Arc<dyn Alarm> {
        self.alarm_in(Place::Softirq, "", Timer::precise, expire)
    }

    /// A device with an alarm of its own, whose `expire` runs where the user wants it to: a precise timer, which usually
    /// expires.
    pub fn timed<D: TimedDevice + 'static>(
        &self,
        device: Device,
        make: impl FnOnce(Arc<dyn Alarm>) -> D,
    ) -> Arc<Mutex<D>> {
        self.with_alarm(device, Timer::precise, make)
    }

    /// The same for a device whose alarm is a timeout, which usually is put off: in the wheel, late by up to an eighth of its
    /// delay.
    pub fn timeout<D: TimedDevice + 'static>(
        &self,
        device: Device,
        make: impl FnOnce(Arc<dyn Alarm>) -> D,
    ) -> Arc<Mutex<D>> {
        self.with_alarm(device, Timer::timeout, make)
    }

    fn with_alarm<D: TimedDevice + 'static>(
        &self,
        device: Device,
        timer: MakeTimer,
        make: impl FnOnce(Arc<dyn Alarm>) -> D,
    ) -> Arc<Mutex<D>> {
        // The alarm belongs to the device, and must not keep it alive.
        Arc::new_cyclic(|weak: &Weak<Mutex<D>>| {
            let weak = Weak::clone(weak);
            let expire = move |now| {
                if let Some(device) = weak.upgrade() {
                    device.lock().expire(now);
                }
            };
            Mutex::new(make(self.alarm_in(self.places.of(device), device.name(), timer, expire)))
        })
    }

    fn alarm_in(
        &self,
        place: Place,
        name: &str,
        timer: MakeTimer,
        expire: impl Fn(Nanos) + Send + Sync + 'static,
    ) -> Arc<dyn Alarm> {
        let clock = self.clock;
        let body = move || expire(clock.now());
        let timer = match place {
            Place::Tasklet => {
                let tasklet = self.tasklet(body);
                // Merged into a run that has yet to start: that one sees all that is due.
                self.timer(timer, move |cpu| _ = tasklet.schedule_on(cpu))
            }
            Place::Workqueue => {
                let body = self.guarded(body);
                let work = self.system.queue(name, QueueKind::Ordered).work(move |_process| body());
                self.timer(timer, move |cpu| _ = work.queue_on(cpu))
            }
            // An expiry is no access of the guest's that something could be in line with.
            Place::Softirq | Place::Inline => {
                let body = self.guarded(body);
                self.timer(timer, move |_| body())
            }
        };
        Arc::new(TimerAlarm { timer, clock })
    }

    fn timer(&self, make: MakeTimer, expired: impl Fn(&Cpu) + Send + Sync + 'static) -> Timer {
        let function = move |softirq: &Softirq<'_>| {
            expired(softirq.cpu());
            // The device starts it again.
            None
        };
        make(self.main_cpu(), Box::new(function))
    }
}
