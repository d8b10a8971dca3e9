//! Telling the host that a handler has begun.
//!
//! A machine that traces interrupts sees when one is injected, but not when the handler's first instruction runs. Where there is a port
//! for it, each hard-interrupt handler writes its vector there first. A write is an exit, so nothing is written where nobody listens, nor
//! while latencies are measured.

use core::sync::atomic::{AtomicBool, Ordering};

use x86::agent::words;
use x86::platform::{TRACE_MARK, TRACE_MARK_ON};
use x86_64::instructions::port::Port;

use crate::boot::info::boot_info;

static LISTENED_TO: AtomicBool = AtomicBool::new(false);

/// Finds out whether somebody listens.
pub(crate) fn init() {
    // SAFETY: a read of this port does nothing, here and on the FPU's side of a PC.
    let answer: u8 = unsafe { Port::new(TRACE_MARK).read() };
    LISTENED_TO.store(answer == TRACE_MARK_ON && boot_info().word(words::MEASURE).is_none(), Ordering::Relaxed);
}

/// The handler of `vector` begins. With interrupts off.
pub(crate) fn handler_entered(vector: u8) {
    if LISTENED_TO.load(Ordering::Relaxed) {
        // SAFETY: init() has seen who has the port.
        unsafe { Port::new(TRACE_MARK).write(vector) };
    }
}
