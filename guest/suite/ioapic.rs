//! C10 and C12: the I/O APIC's registers, and its lines as the devices that every PC has drive them: PIT, RTC and serial port.

use core::sync::atomic::{AtomicU32, Ordering};

use kernel::agent;
use kernel::arch::frame::Frame;
use kernel::arch::percpu::{self, this_cpu};
use kernel::arch::vectors;
use kernel::chips::{apic, ioapic};
use kernel::irq::desc::{Action, IrqReturn, State, desc};
use kernel::irq::{manage, probe};
use kernel::testing::{Failure, TestResult, not_on_qemu_tcg};
use kernel::time::pit::{self, Channel0};
use kernel::{check, check_eq, console, machine, test, time, wait};
use x86::ioapic::{PINS, REG_ARB, REG_ID, REG_VERSION, RedirectionEntry};
use x86::platform::{IRQ_COM1, IRQ_PIT};
use x86::test_record::{Modes, Needs};

use crate::irq::done;

test!("ioapic.identifies_itself", [10], identifies);
test!("ioapic.read_only_registers_stay", [10], read_only);
test!("ioapic.every_entry_reads_back", [10], entries_read_back);
test!("ioapic.read_only_bits_stay", [10], read_only_bits);
test!("ioapic.edge_line_interrupts_once_each_time", [10, 14], edge_line);
test!("ioapic.masked_edge_is_lost", [10], masked_edge);
test!("ioapic.level_line_sets_remote_irr_until_its_eoi", [10, 14], remote_irr; .needs(Needs::IN_SERVICE));
test!("ioapic.level_line_comes_again_while_it_is_up", [10, 14], level_repeats; .needs(Needs::IN_SERVICE));
test!("ioapic.level_line_waits_while_masked", [10, 14], masked_level; .needs(Needs::IN_SERVICE));
test!("ioapic.rewritten_entry_keeps_remote_irr", [10], rewritten; .modes(OURS));
test!("ioapic.changed_vector_does_not_lose_the_eoi", [10], changed_vector; .modes(Modes::USER));
test!("ioapic.trigger_mode_is_that_of_the_last_message", [10, 11], trigger_mode; .modes(OURS).needs(Needs::IN_SERVICE));
test!("ioapic.suppressed_broadcast_leaves_remote_irr", [10, 11], suppressed;
    .needs(Needs::DIRECTED_EOI).modes(Modes::USER));
test!("ioapic.shared_line_is_up_while_somebody_holds_it", [10, 14], shared_line; .needs(Needs::AGENT).modes(OURS));
test!("ioapic.directed_eoi_clears_remote_irr", [10], directed_eoi; .needs(Needs::DIRECTED_EOI));
test!("ioapic.switching_to_edge_clears_remote_irr", [10], pseudo_eoi);
test!("ioapic.static_distribution_to_each_cpu", [10, 12], each_cpu; .cpus(2));
test!("ioapic.distribution_to_all_cpus", [10, 12], all_cpus; .cpus(2));
test!("ioapic.lowest_priority_goes_to_an_idle_cpu", [10, 12], lowest_priority; .cpus(2).modes(Modes::USER));
test!("ioapic.device_is_found_by_probing", [14], probing);
test!("ioapic.two_devices_are_two_when_probing", [14], probing_two);

/// Modes where the I/O APIC is the machine monitor's; KVM's sends a level interrupt again when its entry is written.
const OURS: Modes = Modes::USER.union(Modes::SPLIT);

static COUNT: AtomicU32 = AtomicU32::new(0);
static CPUS: AtomicU32 = AtomicU32::new(0);

fn count() -> u32 {
    COUNT.load(Ordering::SeqCst)
}

fn identifies() -> TestResult {
    check_eq!(usize::from(ioapic::pins()), PINS, "pins");
    check!(matches!(ioapic::version(), 0x11 | 0x20), "version {:#x}", ioapic::version());
    check_eq!(ioapic::read(REG_ID) & 0xf0ff_ffff, 0, "what is beside the ID");
    Ok(())
}

fn read_only() -> TestResult {
    let (version, id) = (ioapic::read(REG_VERSION), ioapic::read(REG_ID));
    ioapic::write(REG_VERSION, 0);
    let version_after = ioapic::read(REG_VERSION);
    ioapic::write(REG_ID, 0xffff_ffff);
    let id_after = ioapic::read(REG_ID);
    ioapic::write(REG_ARB, 0);
    ioapic::write(REG_ID, id);
    check_eq!(version_after, version, "the version after a write");
    check_eq!(id_after, 0x0f00_0000, "the ID after a write of ones");
    check_eq!(ioapic::read(REG_ID), id, "the ID in the end");
    Ok(())
}

fn entries_read_back() -> TestResult {
    for pin in 0..ioapic::pins() {
        let old = ioapic::entry(pin);
        let wanted = RedirectionEntry::new()
            .with_vector(0x40 + pin)
            .with_delivery_mode(1)
            .with_logical(pin % 2 == 0)
            .with_active_low(pin % 3 == 0)
            .with_level(pin % 5 == 0)
            .with_masked(true)
            .with_destination(0xa0 ^ pin);
        ioapic::set_entry(pin, wanted);
        let found = ioapic::entry(pin);
        ioapic::set_entry(pin, old);
        check_eq!(found.into_bits(), wanted.into_bits(), "the entry of pin {pin}");
    }
    Ok(())
}

fn read_only_bits() -> TestResult {
    let old = ioapic::entry(20);
    let wanted = RedirectionEntry::new().with_vector(0x55).with_level(true).with_masked(true);
    ioapic::set_entry(20, wanted.with_remote_irr(true).with_delivery_status(true));
    let found = ioapic::entry(20);
    ioapic::set_entry(20, old);
    check_eq!(found.into_bits(), wanted.into_bits(), "an entry written with its read-only bits");
    Ok(())
}

/// A pin set up for `handler`; given back when dropped.
struct Pin {
    pin: u8,
}

impl Pin {
    fn new(isa: u8, level: bool, handler: fn(u32, usize) -> IrqReturn) -> Result<Self, Failure> {
        COUNT.store(0, Ordering::SeqCst);
        CPUS.store(0, Ordering::SeqCst);
        let pin = Self { pin: machine::isa_pin(isa) };
        done(manage::set_up_pin(pin.pin, level))?;
        let action = Action { handler, thread: None, device: 0, name: "pin", shared: false };
        done(manage::request(pin.irq(), action))?;
        Ok(pin)
    }

    fn irq(&self) -> u32 {
        self.pin.into()
    }

    fn vector(&self) -> u8 {
        desc(self.irq()).and_then(|desc| desc.vector()).unwrap_or(0)
    }

    fn remote_irr(&self) -> bool {
        ioapic::entry(self.pin).remote_irr()
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        Channel0::stop();
        console::set_serial_interrupt(false);
        let _ = manage::free(self.irq(), 0);
        let _ = manage::tear_down(self.irq());
    }
}

fn counting(_: u32, _: usize) -> IrqReturn {
    CPUS.fetch_or(1 << this_cpu().number(), Ordering::SeqCst);
    COUNT.fetch_add(1, Ordering::SeqCst);
    IrqReturn::Handled
}

/// One interrupt for each time the PIT's counter runs out, and no more.
fn edge_line() -> TestResult {
    let pin = Pin::new(IRQ_PIT, false, counting)?;
    for n in 1..=5 {
        Channel0::one_shot(pit::ticks(1_000));
        wait::for_condition(|| count() == n)?;
        check!(!apic::level_triggered(pin.vector()), "accepted as level-triggered");
    }
    time::delay(10_000);
    check_eq!(count(), 5, "interrupts");
    Ok(())
}

fn masked_edge() -> TestResult {
    let pin = Pin::new(IRQ_PIT, false, counting)?;
    ioapic::set_masked(pin.pin, true);
    Channel0::one_shot(pit::ticks(1_000));
    time::delay(20_000);
    ioapic::set_masked(pin.pin, false);
    time::delay(5_000);
    check_eq!(count(), 0, "interrupts from an edge while masked");
    Channel0::one_shot(pit::ticks(1_000));
    wait::for_condition(|| count() == 1)
}

/// The serial port holds its line up while its transmitter is empty and it is asked to say so. Served means: no longer asked.
fn served(_: u32, _: usize) -> IrqReturn {
    console::set_serial_interrupt(false);
    counting(0, 0)
}

fn remote_irr() -> TestResult {
    fn handler(irq: u32, device: usize) -> IrqReturn {
        let vector = desc(irq).and_then(|desc| desc.vector()).unwrap_or(0);
        let seen = ioapic::entry(irq as u8).remote_irr() && apic::level_triggered(vector) && apic::in_service(vector);
        if seen {
            CPUS.fetch_add(0x100, Ordering::SeqCst);
        }
        served(irq, device)
    }
    let pin = Pin::new(IRQ_COM1, true, handler)?;
    for n in 1..=5 {
        console::set_serial_interrupt(true);
        wait::for_condition(|| count() == n)?;
        wait::for_condition(|| !pin.remote_irr())?;
    }
    check_eq!(CPUS.load(Ordering::SeqCst) >> 8, 5, "handlers that saw remote IRR, TMR and ISR");
    Ok(())
}

/// Not served the first three times: the EOI brings it again each time.
fn level_repeats() -> TestResult {
    fn handler(irq: u32, device: usize) -> IrqReturn {
        if count() < 3 { counting(irq, device) } else { served(irq, device) }
    }
    let pin = Pin::new(IRQ_COM1, true, handler)?;
    console::set_serial_interrupt(true);
    wait::for_condition(|| count() == 4)?;
    wait::for_condition(|| !pin.remote_irr())?;
    time::delay(5_000);
    check_eq!(count(), 4, "interrupts after it was served");
    Ok(())
}

fn masked_level() -> TestResult {
    let pin = Pin::new(IRQ_COM1, true, served)?;
    ioapic::set_masked(pin.pin, true);
    console::set_serial_interrupt(true);
    time::delay(5_000);
    check_eq!(count(), 0, "interrupts while masked");
    check!(!pin.remote_irr(), "a masked pin has remote IRR");
    ioapic::set_masked(pin.pin, false);
    wait::for_condition(|| count() == 1)
}

/// A level interrupt that a CPU has taken and not ended: remote IRR is set. The handler's CPU keeps interrupts off meanwhile.
fn with_remote_irr(body: impl FnOnce(&Pin) -> TestResult) -> TestResult {
    let pin = Pin::new(IRQ_COM1, true, served)?;
    // Behind TPR the message is accepted, and stays requested.
    apic::write(x86::apic::reg::TPR, 0xf0);
    console::set_serial_interrupt(true);
    let result = wait::for_condition(|| pin.remote_irr()).and_then(|()| body(&pin));
    apic::write(x86::apic::reg::TPR, 0);
    result?;
    wait::for_condition(|| count() >= 1)
}

/// Masked and unmasked while it is in service: it is in service still, and does not come a second time.
fn rewritten() -> TestResult {
    with_remote_irr(|pin| {
        ioapic::set_masked(pin.pin, true);
        check!(pin.remote_irr(), "masking has cleared it");
        ioapic::set_masked(pin.pin, false);
        check!(pin.remote_irr(), "unmasking has cleared it");
        Ok(())
    })?;
    time::delay(2_000);
    check_eq!(count(), 1, "interrupts");
    Ok(())
}

/// The handler's EOI carries the vector that the entry had when the interrupt was sent.
fn changed_vector() -> TestResult {
    not_on_qemu_tcg("the EOI of a vector that the entry no longer has")?;
    let pin = Pin::new(IRQ_COM1, true, served)?;
    let entry = ioapic::entry(pin.pin);
    apic::write(x86::apic::reg::TPR, 0xf0);
    console::set_serial_interrupt(true);
    let sent = wait::for_condition(|| pin.remote_irr());
    ioapic::set_entry(pin.pin, entry.with_vector(entry.vector() ^ 1));
    apic::write(x86::apic::reg::TPR, 0);
    let came = wait::for_condition(|| count() == 1 && !pin.remote_irr());
    ioapic::set_entry(pin.pin, entry);
    sent.and(came)
}

/// A handler of a vector, without a descriptor: it serves the serial port and says EOI.
fn plain(_: &mut Frame) {
    served(0, 0);
    apic::eoi();
}

/// With the serial port's pin sending an own vector, level-triggered.
fn with_plain_vector(body: impl FnOnce(&Pin, RedirectionEntry) -> TestResult) -> TestResult {
    let pin = Pin::new(IRQ_COM1, true, served)?;
    let Some(vector) = vectors::allocate(plain) else { return Err(Failure::new(format_args!("no vector"))) };
    let entry = ioapic::entry(pin.pin).with_vector(vector).with_remote_irr(false).with_delivery_status(false);
    ioapic::set_entry(pin.pin, entry);
    let result = body(&pin, entry);
    console::set_serial_interrupt(false);
    ioapic::set_masked(pin.pin, true);
    vectors::release(vector);
    result
}

/// One vector, as a level and then as an edge: the TMR says what it was last.
fn trigger_mode() -> TestResult {
    with_plain_vector(|pin, entry| {
        for (n, level) in [(1, true), (2, false), (3, true), (4, false)] {
            ioapic::set_entry(pin.pin, entry.with_level(level));
            console::set_serial_interrupt(true);
            wait::for_condition(|| count() == n)?;
            check_eq!(apic::level_triggered(entry.vector()), level, "the TMR of interrupt {n}");
        }
        Ok(())
    })
}

/// The local APIC keeps the EOI to itself; the I/O APIC hears of it by its own register.
fn suppressed() -> TestResult {
    with_plain_vector(|pin, entry| {
        let svr = x86::apic::Svr::from_bits(apic::read(x86::apic::reg::SVR));
        apic::write(x86::apic::reg::SVR, svr.with_suppress_eoi_broadcast(true).into_bits());
        console::set_serial_interrupt(true);
        let came = wait::for_condition(|| count() == 1);
        let kept = pin.remote_irr();
        ioapic::directed_eoi(entry.vector());
        let cleared = !pin.remote_irr();
        apic::write(x86::apic::reg::SVR, svr.into_bits());
        came?;
        check!(kept, "a suppressed EOI has reached the I/O APIC");
        check!(cleared, "the directed EOI has not");
        Ok(())
    })
}

/// The serial port and the host hold one line: when the first lets go, it is up still.
fn shared_line() -> TestResult {
    fn handler(irq: u32, device: usize) -> IrqReturn {
        if count() == 0 {
            return served(irq, device);
        }
        let _ = agent::set_line(irq, false);
        counting(irq, device)
    }
    let pin = Pin::new(IRQ_COM1, true, handler)?;
    ioapic::set_masked(pin.pin, true);
    console::set_serial_interrupt(true);
    let raised = agent::set_line(pin.irq(), true);
    ioapic::set_masked(pin.pin, false);
    let came = wait::for_condition(|| count() == 2);
    let _ = agent::set_line(pin.irq(), false);
    check!(raised.is_ok(), "the agent refuses");
    came?;
    time::delay(2_000);
    check_eq!(count(), 2, "interrupts after both have let go");
    Ok(())
}

fn directed_eoi() -> TestResult {
    with_remote_irr(|pin| {
        console::set_serial_interrupt(false);
        ioapic::directed_eoi(pin.vector() ^ 1);
        check!(pin.remote_irr(), "another vector's EOI has cleared it");
        ioapic::directed_eoi(pin.vector());
        check!(!pin.remote_irr(), "it is still set");
        Ok(())
    })
}

/// What systems do where there is no EOI register.
fn pseudo_eoi() -> TestResult {
    not_on_qemu_tcg("remote IRR of an edge entry")?;
    with_remote_irr(|pin| {
        console::set_serial_interrupt(false);
        let entry = ioapic::entry(pin.pin);
        ioapic::set_entry(pin.pin, entry.with_masked(true).with_level(false));
        check!(!pin.remote_irr(), "an edge entry has remote IRR");
        ioapic::set_entry(pin.pin, entry);
        check!(!pin.remote_irr(), "it is set again, and the line is down");
        Ok(())
    })
}

fn each_cpu() -> TestResult {
    let pin = Pin::new(IRQ_PIT, false, counting)?;
    let mut n = 0;
    for cpu in percpu::cpus().chain(percpu::cpus()) {
        done(manage::set_affinity(pin.irq(), 1 << cpu.number()))?;
        CPUS.store(0, Ordering::SeqCst);
        for _ in 0..3 {
            n += 1;
            Channel0::one_shot(pit::ticks(1_000));
            wait::for_condition(|| count() == n)?;
        }
        check_eq!(CPUS.load(Ordering::SeqCst), 1 << cpu.number(), "CPUs that took it");
    }
    Ok(())
}

/// One edge, one fixed message to a logical mask of all: each takes it once.
fn all_cpus() -> TestResult {
    fn handler(_: &mut Frame) {
        counting(0, 0);
        apic::eoi();
    }
    let pin = Pin::new(IRQ_PIT, false, counting)?;
    let Some(vector) = vectors::allocate(handler) else { return Err(Failure::new(format_args!("no vector"))) };
    let everyone = RedirectionEntry::new().with_vector(vector).with_destination(0xff);
    let cpus = percpu::cpus().count() as u32;
    let mut result = Ok(());
    for (n, logical) in [(1, false), (2, true)] {
        CPUS.store(0, Ordering::SeqCst);
        ioapic::set_entry(pin.pin, everyone.with_logical(logical));
        Channel0::one_shot(pit::ticks(1_000));
        result = result.and_then(|()| wait::for_condition(|| count() == n * cpus));
    }
    vectors::release(vector);
    result?;
    check_eq!(CPUS.load(Ordering::SeqCst), (1 << cpus) - 1, "CPUs that took it");
    Ok(())
}

/// This CPU is busy with something more important: the others take the line. KVM's own APICs choose by the vector.
fn lowest_priority() -> TestResult {
    not_on_qemu_tcg("arbitration by priority")?;
    let pin = Pin::new(IRQ_PIT, false, counting)?;
    let everyone = percpu::cpus().fold(0, |mask, cpu| mask | 1 << cpu.number());
    done(manage::set_affinity(pin.irq(), everyone))?;
    apic::write(x86::apic::reg::TPR, 0xf0);
    let result = (1..=6).try_for_each(|n| {
        Channel0::one_shot(pit::ticks(1_000));
        wait::for_condition(|| count() == n)
    });
    apic::write(x86::apic::reg::TPR, 0);
    result?;
    check_eq!(CPUS.load(Ordering::SeqCst) & 1, 0, "the busy CPU took it");
    Ok(())
}

/// Free pins, set up and without a user, for probing.
fn with_free_pins(body: impl FnOnce() -> TestResult) -> TestResult {
    let pins = [machine::isa_pin(IRQ_PIT), IRQ_COM1, 5, 10, 11];
    for pin in pins {
        done(manage::set_up_pin(pin, false))?;
    }
    let result = body();
    Channel0::stop();
    console::set_serial_interrupt(false);
    for pin in pins {
        done(manage::tear_down(pin.into()))?;
    }
    result
}

fn probing() -> TestResult {
    with_free_pins(|| {
        let pit = u32::from(machine::isa_pin(IRQ_PIT));
        check!(probe::probe_irq_on(), "somebody else probes");
        check!(!probe::probe_irq_on(), "two can probe at once");
        Channel0::one_shot(pit::ticks(1_000));
        let came = wait::for_condition(|| desc(pit).is_some_and(|desc| !desc.state().contains(State::WAITING)));
        let found = probe::probe_irq_off();
        came?;
        check_eq!(found, Ok(Some(pit)), "the line that was found");
        check!(probe::probe_irq_on(), "probing a second time");
        check_eq!(probe::probe_irq_off(), Ok(None), "the line of a device that is silent");
        Ok(())
    })
}

fn probing_two() -> TestResult {
    with_free_pins(|| {
        let quiet = |irq: u32| desc(irq).is_some_and(|desc| desc.state().contains(State::WAITING));
        check!(probe::probe_irq_on(), "somebody else probes");
        Channel0::one_shot(pit::ticks(1_000));
        console::set_serial_interrupt(true);
        let pit = u32::from(machine::isa_pin(IRQ_PIT));
        let came = wait::for_condition(|| !quiet(pit) && !quiet(IRQ_COM1.into()));
        let found = probe::probe_irq_off();
        came?;
        check_eq!(found, Err(2), "what was found");
        Ok(())
    })
}
