//! The per-CPU area: what each CPU has for itself, found through GS.
//!
//! In the kernel GS.base points to this CPU's area; in ring 3 it belongs to the program. `swapgs` exchanges the two, on entry from
//! ring 3 and on return to it, and nowhere else. Entries that may come between these two points (NMI, debug, double fault, machine check)
//! load GS.base from above their stack instead.
//!
//! Code that uses its CPU's area must not move to another CPU meanwhile: threads of this kernel stay on the CPU they were made for.
//!
//! To read more: Linux, Documentation/arch/x86/entry_64.rst, "swapgs".

use core::arch::asm;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use x86_64::registers::model_specific::Msr;

use super::gdt::Segments;
use super::stack::{EntryStack, KernelStack};
use crate::sched::Task;
use crate::smp::call::CallList;

/// The most CPUs that the kernel can use.
pub const MAX_CPUS: usize = 16;

/// IA32_GS_BASE.
const GS_BASE: u32 = 0xc000_0101;
/// IA32_KERNEL_GS_BASE: what `swapgs` exchanges with.
const KERNEL_GS_BASE: u32 = 0xc000_0102;

/// One CPU's area. The fields before the comment are known to the entry code by their offsets.
#[repr(C, align(64))]
pub struct PerCpu {
    /// Its own address.
    pub(super) me: AtomicU64,
    /// Where the frame of an entry from ring 3 goes; belongs to the running thread, so a context switch saves and loads it.
    pub kernel_stack: AtomicU64,
    /// Top of the hard-interrupt stack.
    pub(super) hardirq_top: AtomicU64,
    /// Top of the NMI stack.
    pub(super) nmi_top: AtomicU64,
    /// Top of the double-fault stack.
    pub(super) fatal_top: AtomicU64,
    /// How many hard-interrupt handlers are nested right now.
    pub hardirq_depth: AtomicU32,
    /// 0 no NMI, 1 one is being handled, 2 one more came meanwhile.
    pub(super) nmi_state: AtomicU32,
    /// TSC of the last entry through a stamping gate, see [`super::stamp`].
    pub(super) stamp: AtomicU64,
    /// What the counter said that it looked at.
    pub(super) counted: AtomicU64,
    // From here on for Rust only.
    /// Number of this CPU, from 0.
    number: AtomicU32,
    /// APIC ID.
    pub apic_id: AtomicU32,
    /// Its segments.
    pub segments: Segments,
    /// The gates' own stacks.
    pub stacks: Stacks,
    /// How often each vector came.
    pub vectors: [AtomicU64; 256],
    /// The deepest nesting of hard-interrupt handlers so far.
    pub deepest: AtomicU32,
    /// NMIs handled.
    pub nmis: AtomicU64,
    /// NMIs that came while one was being handled.
    pub nested_nmis: AtomicU64,
    /// Functions that other CPUs want to have called here.
    pub calls: CallList,
    /// This CPU was asked to reschedule.
    pub need_resched: AtomicU32,
    /// Where a caught double fault goes on, see [`super::traps::catch_double_fault`]: stack pointer, 0 for nowhere.
    pub(super) recovery: AtomicU64,
    /// This CPU's local APIC is in x2APIC mode.
    pub x2apic: AtomicU32,
    /// A CPU that runs has been here.
    pub online: AtomicU32,
    /// The thread that runs.
    pub(crate) current: AtomicPtr<Task>,
    /// How many times preemption is forbidden.
    pub(crate) preempt_count: AtomicU32,
    /// The thread whose floating-point registers the CPU holds.
    pub(crate) fpu_owner: AtomicPtr<Task>,
    /// CR0.TS is set.
    pub(crate) task_switched: AtomicU32,
    /// Turns of the idle loop.
    pub idles: AtomicU64,
}

/// All stacks of a CPU.
#[derive(Default)]
pub struct Stacks {
    /// Where most gates enter (IST 1); the frame is moved away at once.
    pub entry: EntryStack,
    /// The same while an NMI is handled.
    pub entry_in_nmi: EntryStack,
    /// Where NMIs enter (IST 2).
    pub nmi_entry: EntryStack,
    /// Debug exceptions (IST 3).
    pub debug: KernelStack,
    /// The same while an NMI is handled.
    pub debug_in_nmi: KernelStack,
    /// Double fault (IST 4), and faults of entries that find no stack.
    pub fatal: KernelStack,
    /// Machine check (IST 5).
    pub machine_check: KernelStack,
    /// Where NMIs are handled.
    pub nmi: KernelStack,
    /// Where hard interrupts are handled.
    pub hardirq: KernelStack,
    /// Where softirqs are run.
    pub softirq: KernelStack,
    /// Of the first thread of this CPU: idle, or on the bootstrap processor the kernel's start.
    pub first: KernelStack,
}

impl PerCpu {
    const fn new() -> Self {
        Self {
            me: AtomicU64::new(0),
            kernel_stack: AtomicU64::new(0),
            hardirq_top: AtomicU64::new(0),
            nmi_top: AtomicU64::new(0),
            fatal_top: AtomicU64::new(0),
            hardirq_depth: AtomicU32::new(0),
            nmi_state: AtomicU32::new(0),
            stamp: AtomicU64::new(0),
            counted: AtomicU64::new(0),
            number: AtomicU32::new(0),
            apic_id: AtomicU32::new(0),
            segments: Segments::new(),
            stacks: Stacks {
                entry: EntryStack::new(),
                entry_in_nmi: EntryStack::new(),
                nmi_entry: EntryStack::new(),
                debug: KernelStack::new(),
                debug_in_nmi: KernelStack::new(),
                fatal: KernelStack::new(),
                machine_check: KernelStack::new(),
                nmi: KernelStack::new(),
                hardirq: KernelStack::new(),
                softirq: KernelStack::new(),
                first: KernelStack::new(),
            },
            vectors: [const { AtomicU64::new(0) }; 256],
            deepest: AtomicU32::new(0),
            nmis: AtomicU64::new(0),
            nested_nmis: AtomicU64::new(0),
            calls: CallList::new(),
            need_resched: AtomicU32::new(0),
            recovery: AtomicU64::new(0),
            x2apic: AtomicU32::new(0),
            online: AtomicU32::new(0),
            current: AtomicPtr::new(core::ptr::null_mut()),
            preempt_count: AtomicU32::new(0),
            fpu_owner: AtomicPtr::new(core::ptr::null_mut()),
            task_switched: AtomicU32::new(0),
            idles: AtomicU64::new(0),
        }
    }

    /// Number of this CPU, from 0.
    pub fn number(&self) -> usize {
        self.number.load(Ordering::Relaxed) as usize
    }

    /// Name and state of each stack whose canary has changed.
    pub fn overrun(&self) -> Option<&'static str> {
        let stacks = &self.stacks;
        [
            (stacks.hardirq.intact(), "hard-interrupt stack"),
            (stacks.softirq.intact(), "softirq stack"),
            (stacks.nmi.intact(), "NMI stack"),
            (stacks.first.intact(), "first thread's stack"),
            (stacks.debug.intact() && stacks.debug_in_nmi.intact(), "debug stack"),
            (stacks.fatal.intact() && stacks.machine_check.intact(), "double-fault or machine-check stack"),
        ]
        .into_iter()
        .find_map(|(intact, name)| (!intact).then_some(name))
    }
}

static AREAS: [PerCpu; MAX_CPUS] = [const { PerCpu::new() }; MAX_CPUS];
static AREAS_IN_USE: AtomicUsize = AtomicUsize::new(0);

/// The area of the CPU that runs this.
pub fn this_cpu() -> &'static PerCpu {
    let area: *const PerCpu;
    // SAFETY: GS.base points to this CPU's area whenever Rust runs, and its first word is the area's own address. Areas are static.
    unsafe {
        asm!("mov {}, gs:[0]", out(reg) area, options(nostack, readonly, preserves_flags));
        &*area
    }
}

/// The area of the CPU with this number, if it is up.
pub fn cpu(number: usize) -> Option<&'static PerCpu> {
    AREAS.get(number).filter(|area| area.online.load(Ordering::Acquire) != 0)
}

/// Areas of all CPUs that are up.
pub fn cpus() -> impl Iterator<Item = &'static PerCpu> {
    AREAS.iter().filter(|area| area.online.load(Ordering::Acquire) != 0)
}

/// Takes the next free area for the CPU with this APIC ID; `None` when all are taken.
pub(crate) fn allocate(apic_id: u32) -> Option<&'static PerCpu> {
    let number = AREAS_IN_USE.fetch_add(1, Ordering::Relaxed);
    let area = AREAS.get(number)?;
    area.number.store(number as u32, Ordering::Relaxed);
    area.apic_id.store(apic_id, Ordering::Relaxed);
    let address = core::ptr::from_ref(area) as u64;
    area.me.store(address, Ordering::Relaxed);
    let stacks = &area.stacks;
    for stack in [&stacks.entry, &stacks.entry_in_nmi, &stacks.nmi_entry] {
        stack.prepare(address);
    }
    let kernel_stacks = [&stacks.debug, &stacks.debug_in_nmi, &stacks.fatal, &stacks.machine_check];
    for stack in kernel_stacks.into_iter().chain([&stacks.nmi, &stacks.hardirq, &stacks.softirq, &stacks.first]) {
        stack.prepare(address);
    }
    area.kernel_stack.store(stacks.first.top(), Ordering::Relaxed);
    area.hardirq_top.store(stacks.hardirq.top(), Ordering::Relaxed);
    area.nmi_top.store(stacks.nmi.top(), Ordering::Relaxed);
    area.fatal_top.store(stacks.fatal.top(), Ordering::Relaxed);
    Some(area)
}

/// Makes `area` this CPU's: GS, segments, stacks for gates.
pub(crate) fn install(area: &'static PerCpu) {
    area.segments.load(&area.stacks);
    let address = core::ptr::from_ref(area) as u64;
    // SAFETY: the area is static; from here on GS belongs to the kernel, and ring 3 gets 0.
    unsafe {
        Msr::new(GS_BASE).write(address);
        Msr::new(KERNEL_GS_BASE).write(0);
    }
}

/// The CPU takes part from here on.
pub(crate) fn set_online(area: &PerCpu) {
    area.online.store(1, Ordering::Release);
}

/// The CPU is about to be stopped for good, or started again.
pub(crate) fn set_offline(area: &PerCpu) {
    area.online.store(0, Ordering::Release);
    area.hardirq_depth.store(0, Ordering::Relaxed);
    area.nmi_state.store(0, Ordering::Relaxed);
    area.preempt_count.store(0, Ordering::Relaxed);
}
