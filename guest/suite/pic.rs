//! C9: the 8259A pair, through LINT0 of this CPU (virtual wire). Its requests come from the PIT (input 0, an edge), the serial port
//! (input 4) and the RTC (input 8, on the slave).

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use kernel::agent;
use kernel::arch::frame::Frame;
use kernel::arch::vectors;
use kernel::chips::i8259::{self, Chip, NON_SPECIFIC_EOI, VECTOR_BASE};
use kernel::chips::{apic, ioapic};
use kernel::irq::desc::{Action, IrqReturn};
use kernel::irq::flow::Flow;
use kernel::irq::{chip, manage};
use kernel::sync::{disable_interrupts, enable_interrupts, without_interrupts};
use kernel::testing::{TestResult, mode, not_on_qemu_tcg};
use kernel::time::pit::{self, Channel0};
use kernel::time::rtc::{self, Interrupts};
use kernel::{check, check_eq, console, test, time, wait};
use x86::apic::DeliveryMode;
use x86::ioapic::RedirectionEntry;
use x86::pic::{Icw4, Ocw3};
use x86::test_record::{Modes, Needs};

use crate::apic::with_vectors;
use crate::irq::done;

test!("pic.mask_reads_back", [9], mask_reads_back);
test!("pic.elcr_keeps_what_can_be_level", [9], elcr);
test!("pic.masked_request_stays_pending", [9], masked_pending);
test!("pic.edge_comes_through_the_virtual_wire", [9, 11], edge);
test!("pic.masked_lint0_keeps_it_out", [9, 11], masked_lint0);
test!("pic.lower_input_comes_first", [9], lower_first);
test!("pic.service_holds_back_itself_and_below", [9], fully_nested);
test!("pic.slave_comes_through_the_cascade", [9], slave);
test!("pic.two_on_the_slave_with_automatic_eoi", [9], two_on_the_slave; .needs(Needs::AGENT));
test!("pic.request_comes_through_the_ioapic", [9, 10], through_the_ioapic; .modes(Modes::USER));
test!("pic.specific_eoi_ends_its_input", [9], specific_eoi);
test!("pic.automatic_eoi", [9], automatic_eoi);
test!("pic.poll_acknowledges", [9], poll;
    .known(Modes::KERNEL, "a poll of KVM's does not set ISR (Intel 8259A datasheet, Poll Command)"));
test!("pic.rotation_changes_who_is_first", [9], rotation);
test!("pic.special_mask_lets_lower_ones_in", [9], special_mask;
    .known(Modes::KERNEL, "KVM stores special mask mode and ignores it (Intel 8259A datasheet, Special Mask Mode)"));
test!("pic.level_input_asks_as_long_as_it_is_up", [9], level);
test!("pic.level_flow_masks_and_acknowledges", [9, 14], level_flow);
test!("pic.initialization_clears_service_and_mask", [9], initialization;
    .known(Modes::KERNEL, "a poll of KVM's does not set ISR (Intel 8259A datasheet, Poll Command)"));

static COUNT: AtomicU32 = AtomicU32::new(0);
/// The last vectors, the latest in the low byte.
static TRACE: AtomicU64 = AtomicU64::new(0);
/// Handlers that found the chips as they should be.
static GOOD: AtomicU32 = AtomicU32::new(0);

fn count() -> u32 {
    COUNT.load(Ordering::SeqCst)
}

fn note(frame: &Frame) {
    TRACE.store(TRACE.load(Ordering::SeqCst) << 8 | (frame.vector & 0xff), Ordering::SeqCst);
    COUNT.fetch_add(1, Ordering::SeqCst);
}

/// Serves whatever device it is, so that its line goes down; no EOI.
fn serve(frame: &Frame) {
    match frame.vector as u8 - VECTOR_BASE {
        4 => console::set_serial_interrupt(false),
        8 => {
            rtc::take();
        }
        _ => {}
    }
}

fn plain(frame: &mut Frame) {
    serve(frame);
    note(frame);
    i8259::eoi(frame.vector as u8 - VECTOR_BASE);
}

/// With the pair initialized and connected, these inputs unmasked and handled by `handler`; all quiet afterwards.
fn with_pic(inputs: &[u8], handler: vectors::Handler, body: impl FnOnce() -> TestResult) -> TestResult {
    COUNT.store(0, Ordering::SeqCst);
    TRACE.store(0, Ordering::SeqCst);
    GOOD.store(0, Ordering::SeqCst);
    let mut wanted = [0; 16];
    for (vector, input) in wanted.iter_mut().zip(inputs) {
        *vector = VECTOR_BASE + input;
    }
    let result = with_vectors(&wanted[..inputs.len()], handler, || {
        i8259::init();
        inputs.iter().for_each(|&input| i8259::unmask(input));
        apic::connect_pic(true);
        body()
    });
    quiet();
    result
}

fn quiet() {
    without_interrupts(|| {
        apic::connect_pic(false);
        Channel0::stop();
        console::set_serial_interrupt(false);
        rtc::enable(Interrupts::empty());
        Chip::Master.set_levels(0);
        i8259::init();
    });
}

fn pit_soon() {
    Channel0::one_shot(pit::ticks(500));
}

/// Both requested, with interrupts off.
fn request_pit_and_serial() -> TestResult {
    pit_soon();
    console::set_serial_interrupt(true);
    wait::for_condition(|| Chip::Master.irr() & 0x11 == 0x11)
}

fn mask_reads_back() -> TestResult {
    let result = [0x00u8, 0xff, 0x5a, 0xa5].into_iter().try_for_each(|mask| {
        Chip::Master.set_mask(mask);
        Chip::Slave.set_mask(!mask);
        check_eq!((Chip::Master.mask(), Chip::Slave.mask()), (mask, !mask), "the masks");
        Ok(())
    });
    quiet();
    result
}

/// Inputs 0, 1, 2, 8 and 13 are edges for ever.
fn elcr() -> TestResult {
    Chip::Master.set_levels(0xff);
    Chip::Slave.set_levels(0xff);
    let found = (Chip::Master.levels(), Chip::Slave.levels());
    Chip::Master.set_levels(0);
    Chip::Slave.set_levels(0);
    check_eq!(found, (0xf8, 0xde), "inputs that can be level-triggered");
    check_eq!((Chip::Master.levels(), Chip::Slave.levels()), (0, 0), "afterwards");
    Ok(())
}

fn masked_pending() -> TestResult {
    with_pic(&[0], plain, || {
        i8259::mask(0);
        pit_soon();
        wait::for_condition(|| Chip::Master.irr() & 1 != 0)?;
        check_eq!(count(), 0, "interrupts while masked");
        i8259::unmask(0);
        wait::for_condition(|| count() == 1)?;
        check_eq!(Chip::Master.irr() & 1, 0, "its request after it was taken");
        Ok(())
    })
}

fn edge() -> TestResult {
    fn handler(frame: &mut Frame) {
        let good = Chip::Master.isr() == 1 && !apic::in_service(frame.vector as u8);
        plain(frame);
        if good && Chip::Master.isr() == 0 {
            GOOD.fetch_add(1, Ordering::SeqCst);
        }
    }
    with_pic(&[0], handler, || {
        for n in 1..=3 {
            pit_soon();
            wait::for_condition(|| count() == n)?;
        }
        time::delay(2_000);
        check_eq!(count(), 3, "interrupts");
        check_eq!(TRACE.load(Ordering::SeqCst) & 0xff, 0x20, "the vector");
        check_eq!(GOOD.load(Ordering::SeqCst), 3, "in service in the 8259A alone, until the EOI");
        Ok(())
    })
}

fn masked_lint0() -> TestResult {
    with_pic(&[0], plain, || {
        apic::connect_pic(false);
        pit_soon();
        wait::for_condition(|| Chip::Master.irr() & 1 != 0)?;
        time::delay(5_000);
        check_eq!(count(), 0, "interrupts while LINT0 is masked");
        apic::connect_pic(true);
        if mode() == Modes::KERNEL {
            // A write to LINT0 is no reason for KVM to look at its 8259A's output; the next interrupt of any kind is.
            apic::send_to(apic::id(), vectors::RESCHEDULE);
        }
        wait::for_condition(|| count() == 1)
    })
}

fn lower_first() -> TestResult {
    with_pic(&[0, 4], plain, || {
        without_interrupts(request_pit_and_serial)?;
        wait::for_condition(|| count() == 2)?;
        check_eq!(TRACE.load(Ordering::SeqCst), 0x2024, "the order");
        Ok(())
    })
}

/// Input 4 in service, interrupts on: input 0 comes in between, and input 4 itself waits for its EOI.
fn fully_nested() -> TestResult {
    fn handler(frame: &mut Frame) {
        if frame.vector == 0x24 && count() == 0 {
            serve(frame);
            note(frame);
            // A new edge of the same input, which has time to come in if it can; then one of a better.
            console::set_serial_interrupt(true);
            enable_interrupts();
            time::delay(1_000);
            GOOD.store(u32::from(count() == 1), Ordering::SeqCst);
            pit_soon();
            spin_until_another();
            disable_interrupts();
            i8259::eoi(4);
        } else {
            plain(frame);
        }
    }
    with_pic(&[0, 4], handler, || {
        console::set_serial_interrupt(true);
        wait::for_condition(|| count() == 3)?;
        check_eq!(GOOD.load(Ordering::SeqCst), 1, "held back while it is in service");
        check_eq!(TRACE.load(Ordering::SeqCst), 0x24_2024, "the order");
        Ok(())
    })
}

fn rtc_ticks() {
    rtc::set_rate(6);
    rtc::enable(Interrupts::PERIODIC);
}

fn slave() -> TestResult {
    fn handler(frame: &mut Frame) {
        if Chip::Slave.isr() == 1 && Chip::Master.isr() == 4 {
            GOOD.fetch_add(1, Ordering::SeqCst);
        }
        plain(frame);
    }
    with_pic(&[8], handler, || {
        rtc_ticks();
        wait::for_condition(|| count() >= 3)?;
        rtc::enable(Interrupts::empty());
        check_eq!(TRACE.load(Ordering::SeqCst) & 0xff, 0x28, "the vector");
        check_eq!(GOOD.load(Ordering::SeqCst), count(), "in service in both chips");
        check_eq!((Chip::Master.isr(), Chip::Slave.isr()), (0, 0), "in service after both EOIs");
        Ok(())
    })
}

/// Both ask when the first is acknowledged, whose service is over at once: the slave's output must fall and rise, or the master sees
/// no second edge.
fn two_on_the_slave() -> TestResult {
    fn handler(frame: &mut Frame) {
        note(frame);
        let _ = agent::set_line((frame.vector - u64::from(VECTOR_BASE)) as u32, false);
    }
    with_pic(&[10, 11], handler, || {
        without_interrupts(|| {
            i8259::init_with(Icw4::AEOI);
            i8259::unmask(10);
            i8259::unmask(11);
        });
        let result = (1..=5).try_for_each(|n| {
            let raised = without_interrupts(|| agent::set_line(10, true).and_then(|()| agent::set_line(11, true)));
            check!(raised.is_ok(), "the agent refuses");
            wait::for_condition(|| count() == 2 * n)
        });
        let _ = agent::set_line(10, false).and_then(|()| agent::set_line(11, false));
        result?;
        check_eq!(TRACE.load(Ordering::SeqCst) & 0xffff, 0x2a2b, "the order");
        Ok(())
    })
}

/// The pair's output is pin 0 of the I/O APIC, too: set to ExtINT, that brings its requests, each once, with LINT0 masked.
fn through_the_ioapic() -> TestResult {
    const ROUNDS: u32 = 80;
    fn handler(frame: &mut Frame) {
        // Nothing else may come, not even the spurious input 7 of an acknowledge too many.
        GOOD.fetch_add(u32::from(frame.vector == u64::from(VECTOR_BASE)), Ordering::SeqCst);
        plain(frame);
    }
    not_on_qemu_tcg("the pair's output on pin 0")?;
    with_pic(&[0, 7], handler, || {
        apic::connect_pic(false);
        let old = ioapic::entry(0);
        let entry = RedirectionEntry::new().with_delivery_mode(DeliveryMode::ExtInt as u8);
        ioapic::set_entry(0, entry.with_destination(apic::id() as u8));
        let result = (1..=ROUNDS).try_for_each(|n| {
            pit_soon();
            wait::for_condition(|| count() >= n)
        });
        time::delay(2_000);
        ioapic::set_entry(0, old);
        result?;
        check_eq!(count() - GOOD.load(Ordering::SeqCst), 0, "spurious ones");
        check_eq!(count(), ROUNDS, "interrupts");
        Ok(())
    })
}

/// Until a second interrupt has come, in the handler of the first; not for ever.
fn spin_until_another() {
    (0..1_000_000).take_while(|_| count() < 2).for_each(|_| core::hint::spin_loop());
}

/// Two in service, nested; the specific EOI of the outer one ends that one.
fn specific_eoi() -> TestResult {
    fn handler(frame: &mut Frame) {
        serve(frame);
        note(frame);
        if frame.vector == 0x24 {
            pit_soon();
            enable_interrupts();
            spin_until_another();
            disable_interrupts();
        } else {
            let both = Chip::Master.isr();
            i8259::eoi(4);
            let inner = Chip::Master.isr();
            Chip::Master.command(NON_SPECIFIC_EOI);
            let none = Chip::Master.isr();
            let states = u64::from(both) << 16 | u64::from(inner) << 8 | u64::from(none);
            TRACE.store(states, Ordering::SeqCst);
        }
    }
    with_pic(&[0, 4], handler, || {
        console::set_serial_interrupt(true);
        wait::for_condition(|| count() == 2)?;
        check_eq!(TRACE.load(Ordering::SeqCst), 0x11_0100, "in service: both, the inner one, none");
        Ok(())
    })
}

fn automatic_eoi() -> TestResult {
    fn handler(frame: &mut Frame) {
        serve(frame);
        note(frame);
        TRACE.store(u64::from(Chip::Master.isr()) + 1, Ordering::SeqCst);
    }
    with_pic(&[0], handler, || {
        without_interrupts(|| {
            i8259::init_with(Icw4::AEOI);
            i8259::unmask(0);
        });
        for n in 1..=3 {
            pit_soon();
            wait::for_condition(|| count() == n)?;
            check_eq!(TRACE.load(Ordering::SeqCst), 1, "one more than what is in service in the handler");
        }
        Ok(())
    })
}

fn poll() -> TestResult {
    with_pic(&[0, 4], plain, || {
        without_interrupts(|| {
            apic::connect_pic(false);
            check_eq!(Chip::Master.poll() & 0x80, 0, "polling with nothing requested");
            request_pit_and_serial()?;
            check_eq!(Chip::Master.poll() & 0x87, 0x80, "the first poll");
            check_eq!(Chip::Master.isr(), 1, "in service after it");
            check_eq!(Chip::Master.poll() & 0x80, 0, "a poll while that is in service");
            i8259::eoi(0);
            check_eq!(Chip::Master.poll() & 0x87, 0x84, "the next poll");
            i8259::eoi(4);
            console::set_serial_interrupt(false);
            Ok(())
        })
    })
}

/// Set priority: input 3 last, so 4 is first and 0 comes behind 7. Then rotation on EOI: who was served is last.
fn rotation() -> TestResult {
    fn handler(frame: &mut Frame) {
        serve(frame);
        note(frame);
        // Rotate on non-specific EOI.
        Chip::Master.command(0xa0);
    }
    with_pic(&[0, 4], handler, || {
        without_interrupts(|| {
            Chip::Master.command(0xc3);
            request_pit_and_serial()
        })?;
        wait::for_condition(|| count() == 2)?;
        check_eq!(TRACE.load(Ordering::SeqCst), 0x2420, "the order with input 3 last");
        // The usual order again; then input 0 is served, and is last by that.
        Chip::Master.command(0xc7);
        pit_soon();
        wait::for_condition(|| count() == 3)?;
        without_interrupts(request_pit_and_serial)?;
        wait::for_condition(|| count() == 5)?;
        check_eq!(TRACE.load(Ordering::SeqCst) & 0xff_ffff, 0x20_2420, "the order after rotating");
        Ok(())
    })
}

/// Input 0 in service, masked, special mask mode: input 4 comes in.
fn special_mask() -> TestResult {
    fn handler(frame: &mut Frame) {
        serve(frame);
        note(frame);
        if frame.vector == 0x20 {
            i8259::mask(0);
            Chip::Master.command((Ocw3::OCW3 | Ocw3::ESMM | Ocw3::SMM).bits());
            console::set_serial_interrupt(true);
            enable_interrupts();
            spin_until_another();
            disable_interrupts();
            TRACE.store(TRACE.load(Ordering::SeqCst) << 8 | u64::from(count()), Ordering::SeqCst);
            Chip::Master.command((Ocw3::OCW3 | Ocw3::ESMM).bits());
            i8259::eoi(0);
        } else {
            i8259::eoi(4);
        }
    }
    with_pic(&[0, 4], handler, || {
        pit_soon();
        wait::for_condition(|| TRACE.load(Ordering::SeqCst) > 0xffff)?;
        check_eq!(TRACE.load(Ordering::SeqCst), 0x20_2402, "both came, the second inside the first");
        Ok(())
    })
}

fn level() -> TestResult {
    fn handler(frame: &mut Frame) {
        note(frame);
        if count() >= 3 {
            serve(frame);
        }
        i8259::eoi(4);
    }
    with_pic(&[4], handler, || {
        Chip::Master.set_levels(1 << 4);
        console::set_serial_interrupt(true);
        wait::for_condition(|| count() == 3)?;
        time::delay(5_000);
        check_eq!(count(), 3, "interrupts after it was served");
        check_eq!(Chip::Master.irr() & 0x10, 0, "its request with the line down");
        Ok(())
    })
}

/// A descriptor on an input of the pair, with the flow that masks.
fn level_flow() -> TestResult {
    fn handler(_: u32, _: usize) -> IrqReturn {
        let masked = Chip::Master.mask() & 0x10 != 0;
        let ended = Chip::Master.isr() == 0;
        console::set_serial_interrupt(false);
        TRACE.fetch_add(u64::from(masked && ended), Ordering::SeqCst);
        COUNT.fetch_add(1, Ordering::SeqCst);
        IrqReturn::Handled
    }
    with_pic(&[], plain, || {
        let irq = done(manage::create(chip::Chip::Pic(4), Flow::Level, 1))?;
        let action = Action { handler, thread: None, device: 0, name: "serial", shared: false };
        let result = done(manage::request(irq, action)).and_then(|()| {
            (1..=3).try_for_each(|n| {
                console::set_serial_interrupt(true);
                wait::for_condition(|| count() == n && Chip::Master.mask() & 0x10 == 0)
            })
        });
        done(manage::free(irq, 0))?;
        done(manage::tear_down(irq))?;
        result?;
        check_eq!(TRACE.load(Ordering::SeqCst), 3, "handlers that ran masked and acknowledged");
        Ok(())
    })
}

fn initialization() -> TestResult {
    with_pic(&[0], plain, || {
        without_interrupts(|| {
            apic::connect_pic(false);
            pit_soon();
            wait::for_condition(|| Chip::Master.irr() & 1 != 0)?;
            check_eq!(Chip::Master.poll() & 0x87, 0x80, "a poll");
            check_eq!(Chip::Master.isr(), 1, "in service");
            Channel0::stop();
            i8259::init();
            check_eq!((Chip::Master.isr(), Chip::Master.irr()), (0, 0), "after initialization");
            Ok(())
        })
    })
}
