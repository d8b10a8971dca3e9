//! The devices of a storm: lines to the I/O APIC's pins and messages, raised through the agent, whose handlers count.

use core::sync::atomic::Ordering;

use alloc::vec::Vec;

use kernel::agent::{self, Stream, Target, When};
use kernel::chips::ioapic;
use kernel::irq::chip::Chip;
use kernel::irq::desc::{FIRST_DYNAMIC, IrqReturn};
use kernel::irq::flow::Flow;
use kernel::irq::manage;
use kernel::random::Random;
use kernel::testing::{Failure, TestResult};
use x86::agent::Status;

use super::tally::{IS_LEVEL, NUMBERS};
use super::{id_of, lines_come_again, quiesce};
use crate::irq::done;

/// Pins 0 and 2 are left out: the PIT is at one of them, whichever the machine has chosen, and where GSI 0 goes differs.
const PINS: [u8; 22] = [1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23];

/// A device.
struct Device {
    irq: u32,
    disabled: bool,
}

/// All of them; they give back what they hold when dropped.
pub struct Devices {
    lines: Vec<Device>,
    messages: Vec<Device>,
    cpus: usize,
}

/// Sets the agent's line.
fn set_line(irq: u32, up: bool) -> TestResult {
    spoke(agent::set_line(irq, up))
}

pub fn spoke<T>(result: Result<T, Status>) -> Result<T, Failure> {
    result.map_err(|e| Failure::new(format_args!("the agent refuses: {e:?}")))
}

/// A level line is served by lowering it; a line that can't be lowered would come again at once and be counted.
fn handler(irq: u32, _: usize) -> IrqReturn {
    let n = irq as usize;
    if IS_LEVEL[n].load(Ordering::SeqCst) {
        let _ = agent::set_line(irq, false);
        if lines_come_again() && NUMBERS[n].is_idle() {
            return IrqReturn::None;
        }
    }
    NUMBERS[n].arrive();
    IrqReturn::Handled
}

impl Devices {
    /// Every other pin level-triggered, and two messages for each CPU.
    pub fn new(cpus: usize) -> Result<Self, Failure> {
        let mut devices = Self { lines: Vec::new(), messages: Vec::new(), cpus };
        for (n, &pin) in PINS.iter().enumerate() {
            devices.lines.push(Device { irq: pin.into(), disabled: false });
            set_up(pin.into(), n % 2 == 0)?;
        }
        for n in 0..2 * cpus {
            let irq = done(manage::create(Chip::Msi, Flow::Edge, 1 << (n % cpus)))?;
            devices.messages.push(Device { irq, disabled: false });
            done(manage::request_simply(irq, handler, "storm"))?;
        }
        Ok(devices)
    }

    /// One thing that devices, or those who drive them, do.
    pub fn step(&mut self, random: &mut Random) -> TestResult {
        let cpus = self.cpus as u64;
        let line = random.below(self.lines.len() as u64) as usize;
        let message = random.below(self.messages.len() as u64) as usize;
        let idle = NUMBERS[self.lines[line].irq as usize].is_idle();
        match random.below(32) {
            0..=17 => raise(self.lines[line].irq, random)?,
            18..=24 => {
                // To any CPU: the vector is the number's on all of them.
                let to = random.below(cpus) as usize % self.messages.len();
                let (address, _) = done(manage::message(self.messages[to].irq))?;
                let (_, data) = done(manage::message(self.messages[message].irq))?;
                let mut raised = Ok(());
                NUMBERS[self.messages[message].irq as usize].one(|| raised = once(Target::Msi { address, data }));
                raised?;
            }
            25 => self.lines[line].toggle()?,
            26 => self.messages[message].toggle()?,
            // Only the half with the destination is written: the pin is never masked, so edges may be under way.
            27 | 28 if !ioapic::entry(self.lines[line].irq as u8).logical() => {
                ioapic::set_destination(self.lines[line].irq as u8, id_of(random.below(cpus) as usize) as u8);
            }
            // The pin is masked while its entry changes: nothing for an edge that is under way.
            29 | 30 if idle || is_level(self.lines[line].irq) => {
                let mask = 1 + random.below((1 << cpus) - 1) as u32;
                done(manage::set_affinity(self.lines[line].irq, mask))?;
            }
            31 if idle && !self.lines[line].disabled => {
                let irq = self.lines[line].irq;
                if lines_come_again() {
                    quiesce();
                }
                done(manage::free(irq, 0))?;
                done(manage::tear_down(irq))?;
                set_up(irq, !is_level(irq))?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Enables what is disabled.
    pub fn enable_all(&mut self) {
        for device in self.lines.iter_mut().chain(&mut self.messages).filter(|device| device.disabled) {
            let _ = manage::enable(device.irq);
            device.disabled = false;
        }
    }
}

impl Device {
    fn toggle(&mut self) -> TestResult {
        done(if self.disabled { manage::enable(self.irq) } else { manage::disable(self.irq) })?;
        self.disabled = !self.disabled;
        Ok(())
    }
}

impl Drop for Devices {
    fn drop(&mut self) {
        for device in self.lines.iter().chain(&self.messages) {
            let _ = manage::free(device.irq, 0);
            let _ = manage::tear_down(device.irq);
            if device.irq < FIRST_DYNAMIC {
                let _ = agent::set_line(device.irq, false);
            }
        }
    }
}

fn is_level(irq: u32) -> bool {
    IS_LEVEL[irq as usize].load(Ordering::SeqCst)
}

fn set_up(irq: u32, level: bool) -> TestResult {
    IS_LEVEL[irq as usize].store(level, Ordering::SeqCst);
    done(manage::set_up_pin(irq as u8, level))?;
    done(manage::request_simply(irq, handler, "storm"))
}

/// Raises one event and forgets the stream.
fn once(target: Target) -> TestResult {
    let stream = spoke(Stream::start(target, When::Now, 1, None))?;
    spoke(stream.stop()).map(|_| ())
}

/// Raises a line once, if its last event has arrived: up and left up, or up and down.
fn raise(irq: u32, random: &mut Random) -> TestResult {
    let mut result = Ok(());
    NUMBERS[irq as usize].one(|| {
        result = if is_level(irq) {
            set_line(irq, true)
        } else if random.below(2) == 0 {
            set_line(irq, true).and_then(|()| set_line(irq, false))
        } else {
            once(Target::Pulse(irq))
        };
    });
    result
}
