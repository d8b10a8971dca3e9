//! Models of what a local APIC's owner does besides the mailbox protocol itself (`mailbox/loom.rs`): paravirtual EOI
//! against posts, the EOI of a level against its line, and the kick that lands before KVM_RUN. Run with it, and like it
//! without a preemption bound. Each protocol stands here with its strength as parameters; full strength must pass, and
//! each weakening is found.

use std::cell::Cell;

use ::loom::sync::atomic::{AtomicBool, Ordering, fence};
use ::loom::sync::{Arc, Mutex};
use ::loom::thread;

use super::*;
use crate::ioapic::IoApic;
use crate::mailbox::Wake;
use crate::{Accepted, Message};

const HIGH: u8 = 0x51;
const LOW: u8 = 0x31;

fn apic() -> LocalApic {
    let config = Config { id: 0, bsp: true, x2apic: true, tsc_deadline: true, cmci: false, physical_bits: 40 };
    let mut apic = LocalApic::new(config);
    let _ = apic.enter_virtual_wire_mode();
    apic
}

mod pv_eoi {
    use super::*;

    /// The byte: its owner's alone.
    #[derive(Default)]
    struct Byte(Cell<bool>);

    impl EoiFlag for Byte {
        fn set(&self, _: u64) -> bool {
            self.0.set(true);
            true
        }

        fn take(&self, _: u64) -> bool {
            self.0.replace(false)
        }
    }

    /// What is left of the protocol.
    #[derive(Clone, Copy)]
    struct Strength {
        /// Armed only while nothing is requested.
        nothing_requested: bool,
        /// Armed behind the last look, not before the collection.
        armed_last: bool,
        /// Taken back before anything looks at IRR or ISR.
        taken_back_first: bool,
        /// A post kicks an owner whose byte is set like any other.
        kicked: bool,
    }

    const FULL: Strength = Strength { nothing_requested: true, armed_last: true, taken_back_first: true, kicked: true };

    /// An owner whose guest handles one interrupt and ends it as it may, then idles; and what it has delivered.
    struct Owner {
        strength: Strength,
        apic: LocalApic,
        pv_eoi: PvEoi,
        byte: Byte,
        delivered: Vec<u8>,
        /// Handlers of the guest that have not come to their end.
        handlers: u32,
    }

    impl Owner {
        fn new(strength: Strength) -> Self {
            let mut apic = apic();
            apic.accept(HIGH, TriggerMode::Edge);
            let mut pv_eoi = PvEoi::new();
            pv_eoi.write_msr(1, |_| true).unwrap();
            Self { strength, apic, pv_eoi, byte: Byte::default(), delivered: Vec::new(), handlers: 0 }
        }

        fn arm(&mut self) {
            if self.strength.nothing_requested {
                self.pv_eoi.arm(&self.apic, &self.byte);
            } else {
                // As the program does, but for the requests.
                let mut blind = self.apic.clone();
                blind.irr.clear();
                self.pv_eoi.arm(&blind, &self.byte);
            }
        }

        /// Back from the guest, up to the next entry.
        fn look(&mut self, mailbox: &Mailbox) {
            if self.strength.taken_back_first {
                self.pv_eoi.disarm(&mut self.apic, &self.byte);
            }
            if !self.strength.armed_last {
                self.arm();
            }
            let _ = self.apic.collect(mailbox);
            if let Some(vector) = self.apic.acknowledge() {
                self.delivered.push(vector);
                self.handlers += 1;
            }
            if !self.strength.taken_back_first {
                self.pv_eoi.disarm(&mut self.apic, &self.byte);
            }
        }

        /// Runs until the guest idles in the guest.
        fn run(&mut self, mailbox: &Mailbox) {
            loop {
                self.look(mailbox);
                if !mailbox.enter_guest() {
                    continue;
                }
                if self.strength.armed_last {
                    self.arm();
                }
                if self.handlers == 0 {
                    return;
                }
                self.handlers -= 1;
                if !self.byte.0.replace(false) {
                    // By the register: an exit.
                    mailbox.leave();
                    self.pv_eoi.disarm(&mut self.apic, &self.byte);
                    let _ = self.apic.eoi();
                } else if self.handlers == 0 {
                    return;
                }
            }
        }
    }

    fn post_against(strength: Strength) {
        ::loom::model(move || {
            let mailbox = Arc::new(Mailbox::default());
            let armed = Arc::new(AtomicBool::new(false));
            let poster = thread::spawn({
                let (mailbox, armed) = (mailbox.clone(), armed.clone());
                move || {
                    let owed = mailbox.post(LOW, TriggerMode::Edge);
                    // The mistake: an owner that will look at its guest's EOI anyway needs no kick.
                    let spare = !strength.kicked && armed.load(Ordering::SeqCst);
                    if owed && !spare { mailbox.wake() } else { Wake::Nobody }
                }
            });
            let mut owner = Owner::new(strength);
            if !strength.kicked {
                armed.store(true, Ordering::SeqCst);
            }
            owner.run(&mailbox);
            let wake = poster.join().unwrap();
            if mailbox.is_pending() {
                assert_eq!(wake, Wake::Signal, "the guest idles on");
                mailbox.leave();
                owner.run(&mailbox);
            }
            assert_eq!(owner.delivered, [HIGH, LOW], "waits for an EOI that nobody sees");
        });
    }

    #[test]
    fn a_request_never_waits_for_a_silent_eoi() {
        post_against(FULL);
    }

    #[test]
    #[should_panic = "waits for an EOI that nobody sees"]
    fn armed_with_a_request_behind_it_the_request_waits() {
        post_against(Strength { nothing_requested: false, ..FULL });
    }

    #[test]
    #[should_panic = "waits for an EOI that nobody sees"]
    fn armed_before_the_collection_what_is_collected_waits() {
        post_against(Strength { armed_last: false, ..FULL });
    }

    #[test]
    #[should_panic = "waits for an EOI that nobody sees"]
    fn taken_back_after_the_look_the_look_was_for_nothing() {
        post_against(Strength { taken_back_first: false, ..FULL });
    }

    #[test]
    #[should_panic = "the guest idles on"]
    fn without_the_kick_the_guest_idles_on() {
        post_against(Strength { kicked: false, ..FULL });
    }
}

mod eoi_against_raise {
    use super::*;

    const PIN: u8 = 10;

    /// The pin of a level interrupt without a lock, and with or without what would order its two flags.
    struct Unlocked {
        line: AtomicBool,
        remote_irr: AtomicBool,
        fenced: bool,
    }

    impl Unlocked {
        /// A look at the pin, after a change of one flag: true if it fires.
        fn look(&self) -> bool {
            if self.fenced {
                fence(Ordering::SeqCst);
            }
            self.line.load(Ordering::Relaxed)
                && self.remote_irr.compare_exchange(false, true, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        }
    }

    /// The device raises while the interrupt before ends: fired once more by one of the two.
    fn without_a_lock(fenced: bool) {
        ::loom::model(move || {
            let pin = Arc::new(Unlocked { line: AtomicBool::new(false), remote_irr: AtomicBool::new(true), fenced });
            let device = thread::spawn({
                let pin = pin.clone();
                move || {
                    pin.line.store(true, Ordering::Relaxed);
                    pin.look()
                }
            });
            pin.remote_irr.store(false, Ordering::Relaxed);
            let fired = pin.look();
            assert!(device.join().unwrap() | fired, "each left it to the other");
        });
    }

    #[test]
    fn two_fences_would_do_without_a_lock() {
        without_a_lock(true);
    }

    #[test]
    #[should_panic = "each left it to the other"]
    fn without_lock_and_fences_a_level_is_lost() {
        without_a_lock(false);
    }

    /// The real chips, the I/O APIC in its lock: a rise that crosses the EOI is delivered once more, and not twice.
    #[test]
    fn a_rise_that_crosses_the_eoi_is_neither_lost_nor_doubled() {
        ::loom::model(|| {
            let mailbox = Arc::new(Mailbox::default());
            let ioapic = Arc::new(Mutex::new(IoApic::new(0)));
            let sink = |mailbox: &Mailbox, owed: &Cell<bool>, message: &Message| {
                owed.set(owed.get() | mailbox.post(message.vector, message.trigger));
                Accepted::Yes
            };
            // In service, and its line low again.
            let owed = Cell::new(false);
            {
                let to = &mut |message: &Message| sink(&mailbox, &owed, message);
                let mut chip = ioapic.lock().unwrap();
                chip.write(0, 0, &[0x10 + 2 * PIN], to);
                chip.write(0, 0x10, &(1 << 15 | u32::from(HIGH)).to_le_bytes(), to);
                chip.set_line(PIN, true, to);
                chip.set_line(PIN, false, to);
            }
            let mut apic = apic();
            let _ = apic.collect(&mailbox);
            assert_eq!(apic.acknowledge(), Some(HIGH));
            let device = thread::spawn({
                let (mailbox, ioapic) = (mailbox.clone(), ioapic.clone());
                move || {
                    let owed = Cell::new(false);
                    ioapic.lock().unwrap().set_line(PIN, true, &mut |message: &Message| sink(&mailbox, &owed, message));
                    if owed.get() { mailbox.wake() } else { Wake::Nobody }
                }
            });
            // The guest's EOI, all of it on its vCPU's thread.
            if let Effect::Eoi(vector) = apic.eoi() {
                let mut chip = ioapic.lock().unwrap();
                chip.eoi(0, vector, &mut |message: &Message| sink(&mailbox, &owed, message));
            }
            let mut delivered = Vec::new();
            while !mailbox.enter_guest() {
                let _ = apic.collect(&mailbox);
                delivered.extend(apic.acknowledge());
            }
            let wake = device.join().unwrap();
            if mailbox.is_pending() {
                assert_eq!(wake, Wake::Signal);
                let _ = apic.collect(&mailbox);
                delivered.extend(apic.acknowledge());
            }
            assert_eq!(delivered, [HIGH]);
            assert!(ioapic.lock().unwrap().entry(PIN).unwrap().remote_irr());
        });
    }
}

mod kick_before_run {
    use super::*;

    /// A kick may land between the last look and KVM_RUN: its handler has set `immediate_exit`, which the owner clears
    /// before it collects, and never after its last look.
    fn kick_against(cleared_first: bool) {
        ::loom::model(move || {
            let mailbox = Arc::new(Mailbox::default());
            let immediate_exit = Arc::new(AtomicBool::new(true));
            let poster = thread::spawn({
                let (mailbox, immediate_exit) = (mailbox.clone(), immediate_exit.clone());
                move || {
                    if mailbox.post(LOW, TriggerMode::Edge) && mailbox.wake() == Wake::Signal {
                        immediate_exit.store(true, Ordering::SeqCst);
                    }
                }
            });
            let mut apic = apic();
            loop {
                if cleared_first {
                    immediate_exit.store(false, Ordering::SeqCst);
                }
                let _ = apic.collect(&mailbox);
                if mailbox.enter_guest() {
                    break;
                }
            }
            if !cleared_first {
                immediate_exit.store(false, Ordering::SeqCst);
            }
            // In KVM_RUN from here on; it ends if the flag is set, or gets set.
            poster.join().unwrap();
            let ends = immediate_exit.load(Ordering::SeqCst);
            assert!(ends || apic.irr().contains(LOW), "the kick went nowhere");
        });
    }

    #[test]
    fn a_kick_that_lands_before_the_run_ends_it() {
        kick_against(true);
    }

    #[test]
    #[should_panic = "the kick went nowhere"]
    fn cleared_after_the_last_look_a_kick_is_lost() {
        kick_against(false);
    }
}
