//! Lines, I/O APIC and 8259A pair in words.

use std::sync::Arc;

use irqchip::ioapic::{PinState, State as IoApicState};
use irqchip::line::Wire;
use irqchip::pic::{ChipState, State as PicState};
use x86::ioapic::{PINS, RedirectionEntry, VERSION};
use x86::pic::{Icw1, Icw4};
use x86::platform;

use super::Chips;
use super::lapic::delivery;

/// The phase of a chip whose initialisation is complete.
const READY: u8 = 5;

/// The lines that somebody holds, like /proc/interrupts: how often each has risen, and where it goes.
pub fn lines(wires: &[Arc<Wire>], chips: Option<&dyn Chips>) -> String {
    let ioapic = chips.map(Chips::ioapic);
    let mut lines = vec!["GSI        rises  level  asserted by  I/O APIC pin".to_owned()];
    for wire in wires {
        let state = wire.state();
        if state.holders == 0 {
            continue;
        }
        let level = if state.asserting > 0 { "high" } else { "low" };
        let holders = format!("{} of {}", state.asserting, state.holders);
        let pin = match ioapic.as_ref().and_then(|ioapic| ioapic.pins.get(usize::from(wire.gsi()))) {
            Some(pin) => {
                let entry = RedirectionEntry::from_bits(pin.entry);
                let masked = if entry.masked() { ", masked" } else { "" };
                format!("vector {:#04x}{masked}, {} sent", entry.vector(), pin.counters.sent)
            }
            None => "KVM's".to_owned(),
        };
        lines.push(format!("{:>3} {:>12}  {level:<5}  {holders:<11}  {pin}", wire.gsi(), state.rises));
    }
    lines.join("\n") + "\n"
}

/// The I/O APIC's registers and its redirection table.
pub fn ioapic(state: &IoApicState) -> String {
    let mut lines = vec![
        format!("I/O APIC: ID {}, version {VERSION:#04x}, {PINS} entries, IOREGSEL {:#04x}", state.id, state.index),
        "pin line vector delivery  destination    trigger polarity    sent".to_owned(),
    ];
    lines.extend(state.pins.iter().enumerate().map(|(number, pin)| pin_line(number, pin)));
    lines.join("\n") + "\n"
}

/// The entries that are not masked, and those whose line is high or that wait for an EOI.
pub fn pins_in_use(state: &IoApicState) -> String {
    let in_use = |pin: &PinState| {
        let entry = RedirectionEntry::from_bits(pin.entry);
        pin.line || !entry.masked() || entry.remote_irr()
    };
    let pins = state.pins.iter().enumerate().filter(|(_, pin)| in_use(pin));
    pins.map(|(number, pin)| format!("I/O APIC pin {}\n", pin_line(number, pin))).collect()
}

fn pin_line(number: usize, pin: &PinState) -> String {
    let entry = RedirectionEntry::from_bits(pin.entry);
    let id = u16::from(entry.ext_destination()) << 8 | u16::from(entry.destination());
    let destination = format!("{} {id:#x}", if entry.logical() { "logical" } else { "physical" });
    let mut line = format!(
        "{number:>3} {:<4} {:#04x}   {:<9} {destination:<14} {:<7} {:<8} {:>7}",
        if pin.line { "high" } else { "low" },
        entry.vector(),
        delivery(entry.mode()),
        if entry.level() { "level" } else { "edge" },
        if entry.active_low() { "low" } else { "high" },
        pin.counters.sent,
    );
    let flags = [
        (entry.masked(), " masked".to_owned()),
        (
            entry.remote_irr(),
            format!(" remote IRR (vector {:#04x})", RedirectionEntry::from_bits(pin.accepted).vector()),
        ),
        (pin.damped_until.is_some(), " damped".to_owned()),
        (pin.counters.damped > 0, format!(" {} times damped", pin.counters.damped)),
        (pin.counters.edges_dropped() > 0, format!(" {} edges dropped", pin.counters.edges_dropped())),
    ];
    for (_, flag) in flags.iter().filter(|(set, _)| *set) {
        line.push_str(flag);
    }
    line
}

/// The 8259A pair's registers.
pub fn pic(state: &PicState) -> String {
    let chip = |name: &str, first_irq: u8, chip: &ChipState| {
        // Level inputs follow their pins, edge inputs their latch (datasheet, section "Edge and Level Triggered Modes").
        let ltim = Icw1::from_bits_retain(chip.icw1).contains(Icw1::LTIM);
        let level = if ltim { 0xff } else { chip.elcr };
        let irr = chip.lines & level | chip.latch & !level;
        let list = |bits: u8| {
            let irqs: Vec<String> =
                (0..8).filter(|bit| bits & 1 << bit != 0).map(|bit| format!("{}", first_irq + bit)).collect();
            if irqs.is_empty() { "none".to_owned() } else { format!("IRQ {}", irqs.join(" ")) }
        };
        let icw4 = Icw4::from_bits_retain(chip.icw4);
        let mut modes = vec![if chip.phase == READY { "initialised" } else { "not initialised" }];
        modes.extend((icw4.contains(Icw4::AEOI)).then_some("automatic EOI"));
        modes.extend((icw4.contains(Icw4::SFNM)).then_some("special fully nested"));
        modes.extend(chip.special_mask.then_some("special mask"));
        format!(
            "8259A {name}: vectors {:#04x} to {:#04x}, lowest priority {}, {}\n\
             \x20 IRR  {irr:02x}  {}\n  ISR  {:02x}  {}\n  IMR  {:02x}  {}\n  ELCR {:02x}  {}\n  pins {:02x}  {}\n",
            chip.base,
            chip.base + 7,
            first_irq + chip.lowest,
            modes.join(", "),
            list(irr),
            chip.isr,
            list(chip.isr),
            chip.imr,
            list(chip.imr),
            chip.elcr,
            list(chip.elcr),
            chip.lines,
            list(chip.lines),
        )
    };
    chip("master", 0, &state.master) + &chip("slave", platform::IRQ_RTC, &state.slave)
}
