//! The table of interrupts, in the form of /proc/interrupts.
//!
//! To read more: proc(5), "/proc/interrupts".

use core::fmt::Write;
use core::sync::atomic::Ordering;

use super::desc;
use crate::arch::percpu::{self, PerCpu};
use crate::arch::vectors;
use crate::console::Line;

/// Rows of interrupts that every CPU has for itself: name, vector, what it is.
const PER_CPU: [(&str, u8, &str); 8] = [
    ("LOC", vectors::LOCAL_TIMER, "Local timer interrupts"),
    ("SPU", vectors::SPURIOUS, "Spurious interrupts"),
    ("RES", vectors::RESCHEDULE, "Rescheduling interrupts"),
    ("CAL", vectors::CALL_FUNCTION, "Function call interrupts"),
    ("TLB", vectors::INVALIDATE_TLB, "TLB shootdowns"),
    ("MCE", x86::vector::MACHINE_CHECK, "Machine check exceptions"),
    ("DFR", x86::vector::DOUBLE_FAULT, "Double faults"),
    ("PFT", x86::vector::PAGE_FAULT, "Page faults"),
];

/// Writes the table, line by line, to `out`.
pub fn show_interrupts(mut out: impl FnMut(&str)) {
    let mut line = Line::new();
    let _ = write!(line, "    ");
    for cpu in percpu::cpus() {
        let mut name = Line::new();
        let _ = write!(name, "CPU{}", cpu.number());
        let _ = write!(line, " {:>10}", name.as_str());
    }
    out(line.as_str());
    for (irq, desc) in desc::all() {
        let inner = desc.inner.lock();
        if inner.actions.is_empty() {
            continue;
        }
        let mut line = counts(format_args!("{irq:>3}"), |cpu| desc.count_on(cpu.number()));
        let _ = write!(line, "  {:<8} {irq:>3}-{:<8}", inner.chip.name(), inner.flow.name());
        for (n, action) in inner.actions.iter().enumerate() {
            let _ = write!(line, "{}{}", if n == 0 { " " } else { ", " }, action.name);
        }
        drop(inner);
        out(line.as_str());
    }
    let mut line = counts(format_args!("NMI"), |cpu| cpu.nmis.load(Ordering::Relaxed));
    let _ = write!(line, "  Non-maskable interrupts");
    out(line.as_str());
    for (name, vector, what) in PER_CPU {
        let mut line = counts(format_args!("{name}"), |cpu| cpu.vectors[usize::from(vector)].load(Ordering::Relaxed));
        let _ = write!(line, "  {what}");
        out(line.as_str());
    }
    let mut line = Line::new();
    let _ = write!(line, "ERR: {:>10}", vectors::unclaimed());
    out(line.as_str());
}

fn counts(name: core::fmt::Arguments<'_>, of: impl Fn(&PerCpu) -> u64) -> Line {
    let mut line = Line::new();
    // Line never fails.
    let _ = write!(line, "{name}:");
    for cpu in percpu::cpus() {
        let _ = write!(line, " {:>10}", of(cpu));
    }
    line
}
