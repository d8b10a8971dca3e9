//! Non-maskable interrupts, and how they nest.
//!
//! While an NMI is handled the processor holds back further ones, until an `iret`. But any exception inside the handler ends in an
//! `iret` too. So a second NMI may come while the first is still being handled: it must not enter on the same stack, and it must not be
//! handled on top of the first. Here an NMI's frame moves at once to the NMI stack, a second one's below the first; the second only
//! leaves a note, and the first, before it returns, goes round once more. At most one note is kept: further NMIs merge, as in hardware.
//!
//! An NMI may also come just when another entry is about to move its frame away from its small stack. If the handler
//! causes an exception, that would enter on this very stack. So the CPU's gates get a second set of stacks meanwhile.
//!
//! Handlers of NMIs take no locks and log nothing.
//!
//! To read more: Intel SDM vol. 3A, "Nonmaskable Interrupt (NMI)", "Handling Multiple NMIs"; Linux, arch/x86/kernel/nmi.c.

use core::sync::atomic::{AtomicPtr, Ordering};

use super::frame::Frame;
use super::percpu::this_cpu;

/// Handles an NMI.
pub type NmiHandler = fn(&Frame);

static HANDLER: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// States of a CPU.
const NOT_RUNNING: u32 = 0;
const EXECUTING: u32 = 1;
const LATCHED: u32 = 2;

/// Makes `handler` the one that sees all CPUs' NMIs, and gives the old one.
pub fn set_handler(handler: Option<NmiHandler>) -> Option<NmiHandler> {
    let new = handler.map_or(core::ptr::null_mut(), |handler| handler as *mut ());
    from_pointer(HANDLER.swap(new, Ordering::AcqRel))
}

fn from_pointer(pointer: *mut ()) -> Option<NmiHandler> {
    // SAFETY: what is not null was stored from an NmiHandler.
    (!pointer.is_null()).then(|| unsafe { core::mem::transmute::<*mut (), NmiHandler>(pointer) })
}

/// An NMI is being handled on this CPU.
pub fn in_nmi() -> bool {
    this_cpu().nmi_state.load(Ordering::Relaxed) != NOT_RUNNING
}

/// From the stub, on the NMI stack.
pub(super) extern "C" fn do_nmi(frame: &mut Frame) {
    let cpu = this_cpu();
    cpu.vectors[usize::from(x86::vector::NMI)].fetch_add(1, Ordering::Relaxed);
    if cpu.nmi_state.load(Ordering::Relaxed) != NOT_RUNNING {
        // The one that was interrupted can't change the state before we return.
        cpu.nmi_state.store(LATCHED, Ordering::Relaxed);
        cpu.nested_nmis.fetch_add(1, Ordering::Relaxed);
        return;
    }
    cpu.nmi_state.store(EXECUTING, Ordering::Relaxed);
    cpu.segments.switch_to_nmi_set(true);
    // A page fault in here would change what an interrupted page-fault handler is about to read.
    let cr2 = x86_64::registers::control::Cr2::read_raw();
    loop {
        cpu.nmis.fetch_add(1, Ordering::Relaxed);
        if let Some(handler) = from_pointer(HANDLER.load(Ordering::Acquire)) {
            handler(frame);
        }
        if cpu.nmi_state.compare_exchange(EXECUTING, NOT_RUNNING, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            break;
        }
        cpu.nmi_state.store(EXECUTING, Ordering::Relaxed);
    }
    // An NMI that comes from here on is a first one again. It leaves the sets as it found them or as we are about to set them.
    cpu.segments.switch_to_nmi_set(false);
    // SAFETY: CR2 is only ever read by the page-fault handler.
    unsafe { core::arch::asm!("mov cr2, {}", in(reg) cr2, options(nomem, nostack, preserves_flags)) };
}
