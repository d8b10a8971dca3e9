//! Names and phrases.

use bottom_half::ItemKind;
use x86::apic::DeliveryMode;

use crate::trace::event::{Apic, Cause, Eoi, Event};
use crate::trace::{Deferred, Interrupt, Source};

/// Whence an interrupt came.
pub fn source_name(source: Source) -> String {
    match source {
        Source::Line(gsi) => format!("line {gsi}"),
        Source::Pin(pin) => format!("I/O APIC pin {pin}"),
        Source::Pic(input) => format!("8259A IRQ {input}"),
        Source::Msi => "MSI".into(),
        Source::Ipi(from) => format!("ICR of vCPU {from}"),
        Source::Timer => "local APIC timer".into(),
        Source::Local => "local vector table".into(),
        Source::Unknown => "elsewhere".into(),
    }
}

/// What kind of interrupt it is.
pub fn what_name(interrupt: &Interrupt) -> String {
    let message = interrupt.steps.iter().find_map(|step| match step.event {
        Event::Posted { mode, .. } => Some(mode),
        _ => None,
    });
    match (interrupt.vector, message) {
        (Some(vector), _) => format!("vector {vector:#04x}"),
        (None, Some(mode)) => mode_name(mode).into(),
        (None, None) if interrupt.nmi => "NMI".into(),
        (None, None) => "no vector".into(),
    }
}

/// What a deferred item is.
pub fn item_name(item: &Deferred) -> String {
    let vector = item.vector.map_or("", |vector| vector.name());
    let cpu = item.cpu.map_or(String::new(), |cpu| format!(" on CPU {cpu}"));
    match item.kind {
        ItemKind::Softirq => format!("softirq {vector}{cpu}"),
        ItemKind::Tasklet => format!("tasklet {} of {vector}{cpu}", item.key),
        ItemKind::Work => format!("work item of queue {}", item.queue),
        ItemKind::Timer => format!("timer {} of {vector}{cpu}", item.key & 0xffff_ffff),
    }
}

fn mode_name(mode: DeliveryMode) -> &'static str {
    match mode {
        DeliveryMode::Fixed => "fixed",
        DeliveryMode::LowestPriority => "lowest priority",
        DeliveryMode::Smi => "SMI",
        DeliveryMode::RemoteRead => "remote read",
        DeliveryMode::Nmi => "NMI",
        DeliveryMode::Init => "INIT",
        DeliveryMode::StartUp => "start-up",
        DeliveryMode::ExtInt => "ExtINT",
    }
}

/// A step in words.
pub fn step_words(event: &Event) -> String {
    match *event {
        Event::Line { gsi, level: true } => format!("asserted: line {gsi} rises"),
        Event::Line { gsi, level: false } => format!("line {gsi} falls"),
        Event::PicRequested { input } => format!("latched: IRR of the 8259A pair, IRQ {input}"),
        Event::PicWithdrawn { input } => format!("no longer in the 8259A pair's IRR, IRQ {input}"),
        Event::PicAcknowledged { input, vector } => {
            format!("acknowledged at the 8259A pair: IRQ {input} is vector {vector:#04x}")
        }
        Event::PicEnded { input } => format!("EOI at the 8259A pair, IRQ {input}"),
        Event::PinSent { pin, vector, level } => {
            let trigger = if level { "level, remote IRR set" } else { "edge" };
            format!("latched: I/O APIC pin {pin} sends vector {vector:#04x}, {trigger}")
        }
        Event::PinRefused { pin, level: true } => format!("nobody accepts it: I/O APIC pin {pin} keeps it"),
        Event::PinRefused { pin, level: false } => format!("nobody accepts it: the edge at I/O APIC pin {pin} is gone"),
        Event::PinEnded { pin, asserted, damped } => {
            let line = match (asserted, damped) {
                (false, _) => "low",
                (true, false) => "still asserted: it fires again",
                (true, true) => "still asserted: it fires again, later (damped)",
            };
            format!("line re-evaluated: I/O APIC pin {pin} clears remote IRR, its line is {line}")
        }
        Event::Msi { address, data } => format!("asserted: a message, {data:#x} to {address:#x}"),
        Event::MsiRefused => "nobody accepts it".into(),
        Event::Ipi { from, vector, mode } => match mode {
            DeliveryMode::Fixed | DeliveryMode::LowestPriority => {
                format!("asserted: vCPU {from} writes its ICR, {}, vector {vector:#04x}", mode_name(mode))
            }
            mode => format!("asserted: vCPU {from} writes its ICR, {}", mode_name(mode)),
        },
        Event::InKvm { .. } => "given to KVM".into(),
        Event::Posted { vcpu, mode, .. } => format!("posted to vCPU {vcpu}, {}", mode_name(mode)),
        Event::Kicked { vcpu, futex: false } => format!("kick sent: a signal to vCPU {vcpu}"),
        Event::Kicked { vcpu, futex: true } => format!("kick sent: vCPU {vcpu} is woken"),
        Event::Left { vcpu, exit } => format!("vCPU {vcpu} has left the guest: {}", exit.name()),
        Event::Woke { vcpu } => format!("vCPU {vcpu} is awake"),
        Event::Taken { vcpu, mode } => format!("taken by vCPU {vcpu}: {}", mode_name(mode)),
        Event::Requested { vcpu, cause, .. } => {
            let from = match cause {
                Cause::Mailbox => "from its mailbox",
                Cause::Timer => "by its timer",
                Cause::Register => "by a register access",
                Cause::Other => "by itself",
            };
            format!("in IRR of vCPU {vcpu}, {from}")
        }
        Event::Injected { vcpu, .. } => format!("injected into vCPU {vcpu}: from IRR to ISR"),
        Event::ExtIntInjected { vcpu, .. } => format!("injected into vCPU {vcpu}, past its local APIC"),
        Event::NmiInjected { vcpu } => format!("injected into vCPU {vcpu}"),
        Event::Marked { .. } => "handler entered".into(),
        Event::Ended { vcpu, how, .. } => match how {
            Eoi::Register => format!("EOI by vCPU {vcpu}"),
            Eoi::Paravirtual => format!("EOI by vCPU {vcpu}, by the paravirtual flag"),
            Eoi::Cleared => format!("cleared from ISR of vCPU {vcpu}"),
        },
        Event::Cleared { vcpu, .. } => format!("cleared from IRR of vCPU {vcpu}"),
        Event::Priority { vcpu, .. } => format!("TPR of vCPU {vcpu} changes"),
        Event::Thread { .. }
        | Event::Dropped { .. }
        | Event::Machine { .. }
        | Event::Entered { .. }
        | Event::Stayed { .. }
        | Event::Slept { .. }
        | Event::Collected { .. }
        | Event::Deferred { .. } => String::new(),
    }
}

/// Registers of a local APIC.
pub fn apic(apic: &Apic) -> String {
    format!("TPR {:02x} PPR {:02x} IRR {} ISR {}", apic.tpr, apic.ppr, set(&apic.irr), set(&apic.isr))
}

fn set(words: &[u64; 4]) -> String {
    let in_set = |vector: &u8| words[usize::from(vector >> 6)] & 1 << (vector & 63) != 0;
    let vectors: Vec<_> = (0..=u8::MAX).filter(in_set).map(|vector| format!("{vector:02x}")).collect();
    format!("{{{}}}", vectors.join(" "))
}
