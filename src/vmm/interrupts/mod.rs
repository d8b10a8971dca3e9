//! The interrupt controllers wired up: the thin shell with the locks round irqchip's pure chips.
//!
//! Devices drive lines here, vCPUs send IPIs and EOIs here. The PIC has one lock, the I/O APIC has one; where both are
//! held, the PIC's was taken first (its output drives an I/O APIC pin). Messages are posted under the chip's lock,
//! kicks are sent after it is dropped. See docs/locking.md.

mod ports;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

use devices::Alarm;
use irqchip::bus::{ApicBus, Kicks};
use irqchip::destination::Address;
use irqchip::ioapic::IoApic;
use irqchip::lapic::{Ipi, LocalApic};
use irqchip::line::{LineTarget, MsiTarget};
use irqchip::mailbox::{Mailbox, Wake};
use irqchip::message::{Message, MessageSink};
use irqchip::pic::PicPair;
use parking_lot::Mutex;
use sys::kick::ThreadId;
use x86::{Nanos, platform};

use crate::clock::Clock;
pub use ports::{IoApicWindow, PicElcr, PicPorts};

/// The vCPU that LINT0 of the 8259A pair is wired to.
const BSP: usize = 0;
/// The I/O APIC pin that the 8259A pair's output is wired to.
const PIC_PIN: u8 = 0;

/// PIC, I/O APIC, APIC bus, and the threads to kick.
pub struct Interrupts {
    clock: Clock,
    pic: Mutex<PicPair>,
    ioapic: Mutex<TimedIoApic>,
    bus: ApicBus,
    /// The thread of each vCPU, once it runs.
    threads: Box<[OnceLock<ThreadId>]>,
    ioapic_alarm: OnceLock<Arc<dyn Alarm>>,
}

/// The I/O APIC and what its alarm is set to.
struct TimedIoApic {
    chip: IoApic,
    armed: Option<Nanos>,
}

impl Interrupts {
    /// Chips in their reset state and a local APIC mailbox for each of `addresses`.
    pub fn new(clock: Clock, ioapic_id: u8, addresses: Vec<Address>) -> Self {
        Self {
            clock,
            pic: Mutex::new(PicPair::new()),
            ioapic: Mutex::new(TimedIoApic { chip: IoApic::new(ioapic_id), armed: None }),
            threads: addresses.iter().map(|_| OnceLock::new()).collect(),
            bus: ApicBus::new(addresses),
            ioapic_alarm: OnceLock::new(),
        }
    }

    /// Sets what wakes [`Interrupts::expire`]; once, at assembly.
    pub fn set_alarm(&self, alarm: Arc<dyn Alarm>) {
        // A second alarm would be a wiring bug without consequence: the first stays.
        let _ = self.ioapic_alarm.set(alarm);
    }

    /// Makes the calling thread the one that is kicked for vCPU `index`.
    pub fn attach_thread(&self, index: usize) {
        // A vCPU has one thread for life: the first attachment counts.
        let _ = self.threads[index].set(ThreadId::current());
    }

    /// The mailbox of vCPU `index`.
    pub fn mailbox(&self, index: usize) -> &Mailbox {
        &self.bus.mailboxes()[index]
    }

    /// Sends `ipi` from `sender`, the local APIC of vCPU `index`.
    pub fn send_ipi(&self, sender: &mut LocalApic, index: usize, ipi: &Ipi) {
        let mut kicks = Kicks::new();
        self.bus.send_ipi(sender, index, ipi, &mut kicks);
        self.kick(kicks);
    }

    /// A level interrupt has ended at a local APIC; called on its vCPU's thread, and done when this returns.
    pub fn eoi(&self, vector: u8) {
        let now = self.clock.now();
        self.with_ioapic(|ioapic, sink| ioapic.eoi(now, vector, sink));
    }

    /// Publishes a local APIC's changed address; level interrupts that nobody had accepted are tried again.
    pub fn readdress(&self, index: usize, address: Address) {
        self.bus.readdress(index, address);
        self.with_ioapic(|ioapic, sink| ioapic.destinations_changed(sink));
    }

    /// The interrupt acknowledge cycle with the 8259A pair: its vector, or `None` if it no longer asks. A processor
    /// samples INTR just before the cycle; so do we, under the same lock, and a request that is withdrawn in the long
    /// time between our kick and now gives no spurious interrupt.
    pub fn acknowledge_pic(&self) -> Option<u8> {
        let mut kicks = Kicks::new();
        let vector = {
            let mut pic = self.pic.lock();
            pic.output().then(|| {
                let vector = pic.acknowledge();
                // The output falls in the cycle; if there is more, it rises anew.
                self.drive_pic_output(false, &mut kicks);
                if pic.output() {
                    self.drive_pic_output(true, &mut kicks);
                }
                vector
            })
        };
        self.kick(kicks);
        vector
    }

    /// The I/O APIC's alarm has gone off.
    pub fn expire(&self, now: Nanos) {
        self.ioapic.lock().armed = None;
        self.with_ioapic(|ioapic, sink| ioapic.expire(now, sink));
    }

    /// Asks vCPU `index` to look up from what it does.
    pub fn attention(&self, index: usize) {
        let mut kicks = Kicks::new();
        if self.mailbox(index).post_attention() {
            kicks.add(index);
        }
        self.kick(kicks);
    }

    /// Runs `change` on the PIC, then follows its output.
    fn with_pic<R>(&self, change: impl FnOnce(&mut PicPair) -> R) -> R {
        let mut kicks = Kicks::new();
        let result = {
            let mut pic = self.pic.lock();
            let before = pic.output();
            let result = change(&mut pic);
            let after = pic.output();
            if before != after {
                self.drive_pic_output(after, &mut kicks);
            }
            result
        };
        self.kick(kicks);
        result
    }

    /// Called with the PIC's lock held, which orders the levels.
    fn drive_pic_output(&self, level: bool, kicks: &mut Kicks) {
        if self.mailbox(BSP).post_lint0(level) {
            kicks.add(BSP);
        }
        self.post_with_ioapic(kicks, |ioapic, sink| ioapic.set_line(PIC_PIN, level, sink));
    }

    /// Runs `change` on the I/O APIC and kicks those who got something.
    fn with_ioapic<R>(&self, change: impl FnOnce(&mut IoApic, &mut dyn MessageSink) -> R) -> R {
        let mut kicks = Kicks::new();
        let result = self.post_with_ioapic(&mut kicks, change);
        self.kick(kicks);
        result
    }

    /// Runs `change` on the I/O APIC, whose messages go out on the bus, then sets its alarm.
    fn post_with_ioapic<R>(&self, kicks: &mut Kicks, change: impl FnOnce(&mut IoApic, &mut dyn MessageSink) -> R) -> R {
        let mut ioapic = self.ioapic.lock();
        let result = change(&mut ioapic.chip, &mut |message: &Message| self.bus.send(message, kicks));
        let deadline = ioapic.chip.next_deadline();
        if deadline != ioapic.armed
            && let Some(alarm) = self.ioapic_alarm.get()
        {
            ioapic.armed = deadline;
            // Under the lock, so that the alarm's last word is the chip's; the alarms' lock is a leaf.
            alarm.arm(deadline);
        }
        result
    }

    /// Wakes those who need it. No lock is held here.
    fn kick(&self, mut kicks: Kicks) {
        kicks.drain(|index| {
            let mailbox = self.mailbox(index);
            match mailbox.wake() {
                Wake::Nobody => {}
                Wake::Futex => {
                    sys::futex::wake(mailbox.futex().0, 1);
                }
                Wake::Signal => {
                    if let Some(Err(e)) = self.threads[index].get().map(ThreadId::signal) {
                        log::error!("vCPU {index} can't be signalled: {e}");
                    }
                }
            }
        });
    }
}

impl LineTarget for Interrupts {
    fn set_level(&self, gsi: u8, level: bool) {
        if let Some(input) = platform::gsi_to_pic_input(gsi) {
            self.with_pic(|pic| pic.set_line(input, level));
        }
        self.with_ioapic(|ioapic, sink| ioapic.set_line(gsi, level, sink));
    }
}

impl MsiTarget for Interrupts {
    fn send(&self, address: u64, data: u32) {
        let Some(message) = Message::from_msi(address, data) else { return };
        let mut kicks = Kicks::new();
        // An MSI has no line to keep pending: one that nobody takes is gone, as on hardware.
        let _ = self.bus.send(&message, &mut kicks);
        self.kick(kicks);
    }
}
