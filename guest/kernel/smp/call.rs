//! Function calls on other CPUs.
//!
//! Each CPU has a list of calls that others want of it. Putting one on is a compare-and-swap at the head, taking all is one exchange: no
//! locks. Only who finds the list empty sends the IPI: calls that come while one is on its way ride along. The caller may
//! wait until the function has run; while it waits with interrupts off it serves its own list, or two CPUs calling each other would wait for
//! ever.
//!
//! To read more: Linux, kernel/smp.c (smp_call_function_single, llist).

use alloc::boxed::Box;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use x86_64::instructions::interrupts;

use crate::arch::frame::Frame;
use crate::arch::percpu::{self, PerCpu, this_cpu};
use crate::arch::vectors::CALL_FUNCTION;
use crate::chips::apic;

/// What is called, in the hard-interrupt context of the other CPU.
pub type Function = fn(usize);

struct Call {
    next: *mut Call,
    function: Function,
    argument: usize,
    /// Set when the function has run; null if nobody waits, and then the call is on the heap.
    done: *const AtomicBool,
}

/// Calls that wait for a CPU.
pub struct CallList {
    head: AtomicPtr<Call>,
}

impl CallList {
    /// No calls.
    pub const fn new() -> Self {
        Self { head: AtomicPtr::new(core::ptr::null_mut()) }
    }

    /// Puts one on; true if the list was empty.
    fn push(&self, call: *mut Call) -> bool {
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            // SAFETY: nobody else knows the call yet.
            unsafe { (*call).next = head };
            match self.head.compare_exchange_weak(head, call, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return head.is_null(),
                Err(found) => head = found,
            }
        }
    }

    /// Takes all and runs them, the oldest first. On the list's own CPU, with interrupts off.
    fn run(&self) {
        let mut call = self.head.swap(core::ptr::null_mut(), Ordering::Acquire);
        let mut oldest: *mut Call = core::ptr::null_mut();
        while !call.is_null() {
            // SAFETY: what was on the list is ours now; a call lives until its `done` is set, or until we free it.
            unsafe {
                let next = (*call).next;
                (*call).next = oldest;
                (oldest, call) = (call, next);
            }
        }
        while !oldest.is_null() {
            // SAFETY: as above. The link is read before the caller can hear that it is done.
            unsafe {
                let Call { next, function, argument, done } = *oldest;
                function(argument);
                if done.is_null() {
                    drop(Box::from_raw(oldest));
                } else {
                    (*done).store(true, Ordering::Release);
                }
                oldest = next;
            }
        }
    }
}

impl Default for CallList {
    fn default() -> Self {
        Self::new()
    }
}

/// The CALL_FUNCTION interrupt. EOI first: a call that comes while the list is being run sends a new IPI, which must not be lost.
pub(super) fn handle(_frame: &mut Frame) {
    apic::eoi();
    this_cpu().calls.run();
}

/// Calls `function(argument)` on another CPU (or this one, at once); waits for it to have run if `wait`.
pub fn call_on(cpu: &PerCpu, function: Function, argument: usize, wait: bool) {
    if core::ptr::eq(cpu, this_cpu()) {
        crate::sync::without_interrupts(|| function(argument));
        return;
    }
    if wait {
        let done = AtomicBool::new(false);
        let mut call = Call { next: core::ptr::null_mut(), function, argument, done: &done };
        submit(cpu, &mut call);
        wait_for(&done);
    } else {
        submit(
            cpu,
            Box::into_raw(Box::new(Call { next: core::ptr::null_mut(), function, argument, done: core::ptr::null() })),
        );
    }
}

fn submit(cpu: &PerCpu, call: *mut Call) {
    if cpu.calls.push(call) {
        apic::send_to(cpu.apic_id.load(Ordering::Relaxed), CALL_FUNCTION);
    }
}

fn wait_for(done: &AtomicBool) {
    while !done.load(Ordering::Acquire) {
        if !interrupts::are_enabled() {
            this_cpu().calls.run();
        }
        core::hint::spin_loop();
    }
}

/// Calls a function on all other CPUs, one after the other; waits for each if `wait`.
pub fn call_on_others(function: Function, argument: usize, wait: bool) {
    for cpu in percpu::cpus().filter(|cpu| !core::ptr::eq(*cpu, this_cpu())) {
        call_on(cpu, function, argument, wait);
    }
}
