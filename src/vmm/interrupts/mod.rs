//! The interrupt controllers wired up: the thin shell with the locks round irqchip's pure chips, and the way to those that
//! are KVM's.
//!
//! [`Interrupts`] is the PIC and the I/O APIC in this program. Behind them are [`LocalApics`]: this program's own on their
//! [`ApicBus`] (mode `user`), or KVM's ([`KvmApics`], mode `split`). [`KernelChips`] are all KVM's (mode `kernel`).
//!
//! Devices drive lines here, vCPUs send IPIs and EOIs here. The PIC has one lock, the I/O APIC has one; where both are
//! held, the PIC's was taken first (its output drives an I/O APIC pin). Messages are posted under the chip's lock,
//! kicks are sent after it is dropped. See docs/locking.md.

mod eoi_routes;
mod irqfds;
mod kernel;
mod kvm_apics;
mod kvm_msi;
mod ledger;
mod local_apics;
mod owed;
mod ports;
mod processors;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

use devices::Alarm;
use irqchip::bus::{ApicBus, Kicks};
use irqchip::destination::Address;
use irqchip::ioapic::{IoApic, State as IoApicState};
use irqchip::lapic::{Ipi, LocalApic};
use irqchip::ledger::Posts;
use irqchip::line::{LineTarget, MsiTarget};
use irqchip::mailbox::Mailbox;
use irqchip::message::{Message, MessageSink};
use irqchip::pic::{PicPair, PicPort, State as PicState};
use parking_lot::Mutex;
use x86::apic::DeliveryMode;
use x86::{Nanos, platform};

use crate::clock::Clock;
use crate::monitor::Chips;
use crate::trace::event::Event;
use crate::trace::{Pins, Trace};
pub use kernel::KernelChips;
pub use kvm_apics::{EOI_ROUTES, KvmApics};
pub use ledger::ChipLedger;
use ledger::Msis;
pub use local_apics::LocalApics;
pub use owed::HeldKicks;
pub use ports::{IoApicWindow, PicElcr, PicPorts};
pub use processors::Processors;

/// The vCPU that LINT0 of the 8259A pair is wired to.
const BSP: usize = 0;
/// The I/O APIC pin that the 8259A pair's output is wired to.
const PIC_PIN: u8 = 0;
/// When to try again what nobody has accepted, where nobody will say that it is time.
const RETRY: Nanos = 100_000_000;

/// What a device can drive: lines and messages.
pub trait Inputs: LineTarget + MsiTarget {}

impl<T: LineTarget + MsiTarget> Inputs for T {}

/// PIC and I/O APIC, the local APICs behind them, and the vCPUs' threads to kick.
pub struct Interrupts<A = ApicBus> {
    clock: Clock,
    pic: Mutex<PicPair>,
    ioapic: Mutex<TimedIoApic>,
    apics: A,
    processors: Arc<Processors>,
    ioapic_alarm: OnceLock<Arc<dyn Alarm>>,
    msis: Msis,
}

/// The I/O APIC and what its alarm is set to.
struct TimedIoApic {
    chip: IoApic,
    /// When to try again.
    retry: Option<Nanos>,
    armed: Option<Nanos>,
    /// What its messages have put into mailboxes.
    posts: Posts,
}

impl Interrupts {
    /// Chips in their reset state and a local APIC mailbox for each of `addresses`.
    pub fn new(clock: Clock, ioapic_id: u8, addresses: Vec<Address>) -> Self {
        Self::traced(clock, ioapic_id, addresses, Trace::default())
    }

    /// The same, with what happens recorded in `trace`.
    pub fn traced(clock: Clock, ioapic_id: u8, addresses: Vec<Address>, trace: Trace) -> Self {
        let bus = ApicBus::new(addresses).observed_by(trace.recorder().map(|recorder| Arc::clone(recorder) as _));
        let processors = Processors::traced(Arc::clone(bus.mailboxes()), trace);
        Self::with_apics(clock, ioapic_id, bus, processors)
    }

    /// Sends `ipi` from `sender`, the local APIC of vCPU `index`.
    pub fn send_ipi(&self, sender: &mut LocalApic, index: usize, ipi: &Ipi) {
        let mut kicks = Kicks::new();
        let (vector, mode) = (ipi.message.vector, ipi.message.mode);
        self.trace().record(|| Event::Ipi { from: index as u32, vector, mode });
        self.apics.send_ipi(sender, index, ipi, &mut kicks);
        self.processors.kick(kicks);
    }

    /// Publishes a local APIC's changed address; level interrupts that nobody had accepted are tried again.
    pub fn readdress(&self, index: usize, address: Address) {
        self.apics.readdress(index, address);
        self.with_ioapic(|ioapic, sink| ioapic.destinations_changed(sink));
    }
}

impl<A: LocalApics> Interrupts<A> {
    /// Chips in their reset state in front of `apics`.
    pub fn with_apics(clock: Clock, ioapic_id: u8, apics: A, processors: Arc<Processors>) -> Self {
        Self {
            clock,
            pic: Mutex::new(PicPair::new()),
            ioapic: Mutex::new(TimedIoApic {
                chip: IoApic::new(ioapic_id),
                retry: None,
                armed: None,
                posts: Posts::default(),
            }),
            apics,
            processors,
            ioapic_alarm: OnceLock::new(),
            msis: Msis::default(),
        }
    }

    /// Sets what wakes [`Interrupts::expire`]; once, at assembly.
    pub fn set_alarm(&self, alarm: Arc<dyn Alarm>) {
        // A second alarm would be a wiring bug without consequence: the first stays.
        let _ = self.ioapic_alarm.set(alarm);
    }

    /// The vCPUs' threads.
    pub fn processors(&self) -> &Arc<Processors> {
        &self.processors
    }

    /// Where what happens is recorded.
    pub fn trace(&self) -> &Trace {
        self.processors.trace()
    }

    /// The mailbox of vCPU `index`.
    pub fn mailbox(&self, index: usize) -> &Mailbox {
        self.processors.mailbox(index)
    }

    /// Makes the calling thread the one that is kicked for vCPU `index`.
    pub fn attach_thread(&self, index: usize) {
        self.processors.attach_thread(index);
    }

    /// A level interrupt has ended at a local APIC; called on its vCPU's thread, and done when this returns.
    pub fn eoi(&self, vector: u8) {
        let now = self.clock.now();
        self.with_pins(Pins::Of(vector), |ioapic, sink| ioapic.eoi(now, vector, sink));
    }

    /// The interrupt acknowledge cycle with the 8259A pair: its vector, or `None` if it no longer asks. A processor
    /// samples INTR just before the cycle; so do we, under the same lock, and a request that is withdrawn in the long
    /// time between our kick and now gives no spurious interrupt.
    ///
    /// With `latched` the request came as a message of the I/O APIC, which nothing takes back: the cycle runs in any
    /// case, and gives the spurious IRQ 7 if the request is gone.
    pub fn acknowledge_pic(&self, latched: bool) -> Option<u8> {
        let mut kicks = Kicks::new();
        let vector = {
            let mut pic = self.pic.lock();
            (latched || pic.output()).then(|| {
                let before = self.trace().before_pic(&pic);
                let vector = pic.acknowledge();
                self.trace().after_pic(before, &pic, Some(vector));
                // The output falls in the cycle; if there is more, it rises anew.
                self.drive_pic_output(false, &mut kicks);
                if pic.output() {
                    self.drive_pic_output(true, &mut kicks);
                }
                vector
            })
        };
        self.processors.kick(kicks);
        vector
    }

    /// A device can make an NMI or INIT, because the guest has set a pin of the I/O APIC to that.
    pub fn can_give_nmi(&self) -> bool {
        let ioapic = self.ioapic.lock();
        (0..x86::ioapic::PINS as u8)
            .filter_map(|pin| ioapic.chip.entry(pin))
            .any(|entry| !entry.masked() && matches!(entry.mode(), Some(DeliveryMode::Nmi | DeliveryMode::Init)))
    }

    /// The I/O APIC's alarm has gone off.
    pub fn expire(&self, now: Nanos) {
        {
            let mut ioapic = self.ioapic.lock();
            (ioapic.armed, ioapic.retry) = (None, None);
        }
        self.with_ioapic(|ioapic, sink| {
            ioapic.expire(now, sink);
            ioapic.destinations_changed(sink);
        });
    }

    /// Reads one of the PIC's ports. The answer to a poll is an acknowledge: the output falls in it, and rises anew if there is
    /// more.
    fn read_pic(&self, port: PicPort) -> u8 {
        self.with_watched_pic(|pic| pic.read_and_watch(port))
    }

    /// Runs `change` on the PIC, then follows its output.
    fn with_pic<R>(&self, change: impl FnOnce(&mut PicPair) -> R) -> R {
        self.with_watched_pic(|pic| (change(pic), false))
    }

    /// The same; `change` says whether the output was low in between.
    fn with_watched_pic<R>(&self, change: impl FnOnce(&mut PicPair) -> (R, bool)) -> R {
        let mut kicks = Kicks::new();
        let result = {
            let mut pic = self.pic.lock();
            let before = pic.output();
            let traced = self.trace().before_pic(&pic);
            let (result, low) = change(&mut pic);
            self.trace().after_pic(traced, &pic, None);
            let after = pic.output();
            if before && (low || !after) {
                self.drive_pic_output(false, &mut kicks);
            }
            if after && (low || !before) {
                self.drive_pic_output(true, &mut kicks);
            }
            result
        };
        self.processors.kick(kicks);
        result
    }

    /// Called with the PIC's lock held, which orders the levels.
    fn drive_pic_output(&self, level: bool, kicks: &mut Kicks) {
        if self.mailbox(BSP).post_lint0(level) {
            kicks.add(BSP);
        }
        self.post_with_ioapic(kicks, Pins::One(PIC_PIN), |ioapic, sink| ioapic.set_line(PIC_PIN, level, sink));
    }

    /// Runs `change` on the I/O APIC and kicks those who got something.
    fn with_ioapic<R>(&self, change: impl FnOnce(&mut IoApic, &mut dyn MessageSink) -> R) -> R {
        self.with_pins(Pins::All, change)
    }

    /// The same, where no more than these pins are concerned.
    fn with_pins<R>(&self, pins: Pins, change: impl FnOnce(&mut IoApic, &mut dyn MessageSink) -> R) -> R {
        let mut kicks = Kicks::new();
        let result = self.post_with_ioapic(&mut kicks, pins, change);
        self.processors.kick(kicks);
        result
    }

    /// Runs `change`, which concerns no more than `pins`, on the I/O APIC, whose messages go out on the bus, then sets its alarm.
    fn post_with_ioapic<R>(
        &self,
        kicks: &mut Kicks,
        pins: Pins,
        change: impl FnOnce(&mut IoApic, &mut dyn MessageSink) -> R,
    ) -> R {
        let mut ioapic = self.ioapic.lock();
        let traced = self.trace().before_pins(&ioapic.chip, pins);
        let result = change(&mut ioapic.chip, &mut |message: &Message| self.apics.send_for_ioapic(message, kicks));
        ioapic.posts.add(&kicks.take_posts());
        self.trace().after_pins(traced, &ioapic.chip);
        self.apics.settled(&ioapic.chip);
        let waits = self.apics.is_silent() && ioapic.chip.is_waiting();
        ioapic.retry = waits.then(|| ioapic.retry.unwrap_or_else(|| self.clock.now().saturating_add(RETRY)));
        let deadline = ioapic.chip.next_deadline().into_iter().chain(ioapic.retry).min();
        if deadline != ioapic.armed
            && let Some(alarm) = self.ioapic_alarm.get()
        {
            ioapic.armed = deadline;
            // Under the lock, so that the alarm's last word is the chip's; the alarms' lock is a leaf.
            alarm.arm(deadline);
        }
        result
    }
}

impl<A: LocalApics> Chips for Interrupts<A> {
    fn pic(&self) -> PicState {
        self.pic.lock().save()
    }

    fn ioapic(&self) -> IoApicState {
        self.ioapic.lock().chip.save()
    }

    fn ledger(&self) -> ChipLedger {
        let mut ledger = ChipLedger { msi: self.msis.account(), msi_posts: self.msis.posts(), ..ChipLedger::default() };
        {
            let pic = self.pic.lock();
            ledger.cycles = pic.cycles();
            ledger.inputs = (0..16).filter_map(|input| Some((input, pic.account(input)?))).collect();
        }
        let ioapic = self.ioapic.lock();
        ledger.ioapic_posts = ioapic.posts;
        let pin = |pin| Some((pin, (ioapic.chip.counters(pin)?.account, ioapic.chip.is_pending(pin))));
        ledger.pins = (0..x86::ioapic::PINS as u8).filter_map(pin).collect();
        ledger
    }
}

impl<A: LocalApics> LineTarget for Interrupts<A> {
    fn set_level(&self, gsi: u8, level: bool) {
        self.trace().record(|| Event::Line { gsi, level });
        if let Some(input) = platform::gsi_to_pic_input(gsi) {
            self.with_pic(|pic| pic.set_line(input, level));
        }
        self.with_pins(Pins::One(gsi), |ioapic, sink| ioapic.set_line(gsi, level, sink));
    }
}

impl<A: LocalApics> MsiTarget for Interrupts<A> {
    fn send(&self, address: u64, data: u32) {
        self.msis.asserted();
        let Some(message) = Message::from_msi(address, data) else { return self.msis.malformed() };
        let mut kicks = Kicks::new();
        self.trace().record(|| Event::Msi { address, data });
        // An MSI has no line to keep pending: one that nobody takes is gone, as on hardware.
        let accepted = self.apics.send(&message, &mut kicks);
        if !accepted.is_accepted() {
            self.trace().record(|| Event::MsiRefused);
        }
        self.msis.sent(accepted, &kicks.take_posts());
        self.processors.kick(kicks);
    }
}
