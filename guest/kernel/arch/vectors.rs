//! The vector layout, and who owns which vector.
//!
//! | vectors | |
//! |---|---|
//! | 0-31 | exceptions |
//! | 0x20-0x7f, 0x81-0xee | devices |
//! | 0x80 | system call |
//! | 0xef | local APIC timer |
//! | 0xfb, 0xfc, 0xfd | CALL_FUNCTION, RESCHEDULE, INVALIDATE_TLB |
//! | 0xfe | local APIC error |
//! | 0xff | spurious |
//!
//! The high half of a vector is its priority: IPIs come before devices. A vector without an owner goes to a default handler that counts
//! it and acknowledges it, so that a stray interrupt does not block all of lower priority for ever.
//!
//! To read more: Intel SDM vol. 3A, "Interrupt, Task, and Processor Priority"; Linux, arch/x86/include/asm/irq_vectors.h.

use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use super::frame::Frame;
use super::percpu::this_cpu;
use crate::chips::apic;

/// The first vector of devices.
pub const FIRST_DEVICE: u8 = x86::vector::FIRST_DEVICE;
/// System call.
pub const SYSTEM_CALL: u8 = 0x80;
/// The last vector of devices.
pub const LAST_DEVICE: u8 = 0xee;
/// Local APIC timer.
pub const LOCAL_TIMER: u8 = 0xef;
/// Call a function on this CPU.
pub const CALL_FUNCTION: u8 = 0xfb;
/// Look at the run queue.
pub const RESCHEDULE: u8 = 0xfc;
/// Forget translations.
pub const INVALIDATE_TLB: u8 = 0xfd;
/// Local APIC error.
pub const APIC_ERROR: u8 = 0xfe;
/// The local APIC's spurious-interrupt vector.
pub const SPURIOUS: u8 = 0xff;

/// Handles a vector; runs in the hard-interrupt context, and ends the interrupt itself ([`apic::eoi`]).
pub type Handler = fn(&mut Frame);

static HANDLERS: [AtomicPtr<()>; 256] = [const { AtomicPtr::new(core::ptr::null_mut()) }; 256];
/// Interrupts on vectors that nobody owned.
static UNCLAIMED: AtomicU64 = AtomicU64::new(0);
/// Interrupts on the spurious vector.
static SPURIOUS_COUNT: AtomicU64 = AtomicU64::new(0);

/// Makes `handler` the owner of a vector, and gives the old owner.
pub fn set_handler(vector: u8, handler: Option<Handler>) -> Option<Handler> {
    let new = handler.map_or(core::ptr::null_mut(), |handler| handler as *mut ());
    from_pointer(HANDLERS[usize::from(vector)].swap(new, Ordering::AcqRel))
}

/// Takes a free device vector for `handler`, the highest first; `None` when all are taken.
pub fn allocate(handler: Handler) -> Option<u8> {
    let devices = (FIRST_DEVICE..=LAST_DEVICE).rev().filter(|&vector| vector != SYSTEM_CALL);
    devices.into_iter().find(|&vector| claim(vector, handler))
}

/// Takes this vector if it is free.
pub fn claim(vector: u8, handler: Handler) -> bool {
    let slot = &HANDLERS[usize::from(vector)];
    slot.compare_exchange(core::ptr::null_mut(), handler as *mut (), Ordering::AcqRel, Ordering::Relaxed).is_ok()
}

/// Gives a vector back.
pub fn release(vector: u8) {
    set_handler(vector, None);
}

fn from_pointer(pointer: *mut ()) -> Option<Handler> {
    // SAFETY: what is not null was stored from a Handler.
    (!pointer.is_null()).then(|| unsafe { core::mem::transmute::<*mut (), Handler>(pointer) })
}

/// Interrupts on vectors that nobody owned, since the start.
pub fn unclaimed() -> u64 {
    UNCLAIMED.load(Ordering::Relaxed)
}

/// Interrupts on the spurious vector, since the start.
pub fn spurious() -> u64 {
    SPURIOUS_COUNT.load(Ordering::Relaxed)
}

/// Counts the vector and calls its owner.
pub(crate) fn dispatch(frame: &mut Frame) {
    let vector = frame.vector as usize & 0xff;
    this_cpu().vectors[vector].fetch_add(1, Ordering::Relaxed);
    match from_pointer(HANDLERS[vector].load(Ordering::Acquire)) {
        Some(handler) => handler(frame),
        // A spurious interrupt is not in service: an EOI would end another one.
        None if vector == usize::from(SPURIOUS) => {
            SPURIOUS_COUNT.fetch_add(1, Ordering::Relaxed);
        }
        None => {
            UNCLAIMED.fetch_add(1, Ordering::Relaxed);
            apic::eoi();
        }
    }
}
