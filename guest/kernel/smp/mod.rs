//! More than one CPU: bringing up the others, and what CPUs say to each other.
//!
//! An application processor sleeps until it gets INIT and then a start-up IPI, whose vector is the page where it begins in real mode. The
//! bootstrap processor starts them one by one: puts the real-mode code there, hands over a stack and a per-CPU area, and waits for the
//! new one to say that it is up.
//!
//! To read more: Intel SDM vol. 3A, "Multiple-Processor (MP) Initialization"; Intel MultiProcessor Specification, "Using INIT IPI".

pub mod call;
pub mod tlb;

use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use x86::apic::{DeliveryMode, Icr};

use crate::arch::percpu::{self, PerCpu, this_cpu};
use crate::arch::{fpu, idt, vectors};
use crate::boot::{ap_stack, ap_trampoline, ap_trampoline_end};
use crate::chips::apic;
use crate::{log, machine, sched, softirq, time};

/// Where application processors wake; the start-up IPI names the page.
const TRAMPOLINE: u64 = 0x8000;
/// How long to wait for one, in microseconds of the PM timer or PIT: generous, hosts can be slow.
const PATIENCE_US: u64 = 2_000_000;

/// Whether the one that was asked to stands still.
static STANDING: AtomicBool = AtomicBool::new(false);
/// The area of the one that is being started.
static STARTING: AtomicPtr<PerCpu> = AtomicPtr::new(core::ptr::null_mut());

/// Claims the IPIs' vectors.
pub(crate) fn init() {
    vectors::set_handler(vectors::CALL_FUNCTION, Some(call::handle));
    vectors::set_handler(vectors::RESCHEDULE, Some(reschedule));
    vectors::set_handler(vectors::INVALIDATE_TLB, Some(tlb::handle));
}

/// Starts all CPUs that the tables list.
pub(crate) fn start_all(apic_ids: &[u32]) {
    let length = (&raw const ap_trampoline_end as usize) - (&raw const ap_trampoline as usize);
    // SAFETY: the page below 1 MiB is free RAM: what the loader had to say has been read.
    unsafe { core::ptr::copy_nonoverlapping(&raw const ap_trampoline, TRAMPOLINE as *mut u8, length) };
    for &apic_id in apic_ids.iter().filter(|&&id| id != apic::id()) {
        let Some(area) = percpu::allocate(apic_id) else {
            log!("more than {} CPUs: the others are not used", percpu::MAX_CPUS);
            break;
        };
        if start(area) {
            softirq::start_thread(area.number());
        } else {
            log!("CPU {}, APIC ID {apic_id}, does not come up", area.number());
        }
    }
}

/// Starts one; true when it is up.
fn start(area: &'static PerCpu) -> bool {
    let apic_id = area.apic_id.load(Ordering::Relaxed);
    STARTING.store(core::ptr::from_ref(area).cast_mut(), Ordering::Release);
    // SAFETY: the processors wake one by one, and this one has its stack to itself.
    unsafe { ap_stack = area.stacks.first.top() };
    init_and_start_up(apic_id, || area.online.load(Ordering::Acquire) != 0)
}

/// INIT, start-up, and once more start-up if `is_up` does not become true.
fn init_and_start_up(apic_id: u32, is_up: impl Fn() -> bool) -> bool {
    let init = apic::message(DeliveryMode::Init, 0, apic_id).with_level_triggered(true);
    apic::send(init);
    apic::send(init.with_assert(false));
    let start_up: Icr = apic::message(DeliveryMode::StartUp, (TRAMPOLINE >> 12) as u8, apic_id);
    for patience in [PATIENCE_US / 20, PATIENCE_US] {
        apic::send(start_up);
        if time::wait_until(patience, &is_up) {
            return true;
        }
    }
    false
}

/// The first Rust of an application processor: on its stack, without GS.
pub(crate) fn start_secondary() -> ! {
    // SAFETY: the one that starts us stored the area before the start-up IPI, and starts one at a time. Areas are static.
    let area = unsafe { &*STARTING.load(Ordering::Acquire) };
    idt::load();
    percpu::install(area);
    apic::init(machine::use_x2apic());
    fpu::init();
    sched::init_secondary();
    percpu::set_online(area);
    sched::idle_loop()
}

/// Has another CPU stop for good in an interrupt, as hot unplugging does before it takes a CPU away. It then holds no lock: locks are
/// held with interrupts off. False if it does not.
pub fn stand_still(area: &PerCpu) -> bool {
    fn stand(_: usize) {
        STANDING.store(true, Ordering::Release);
        loop {
            x86_64::instructions::hlt();
        }
    }
    STANDING.store(false, Ordering::Relaxed);
    call::call_on(area, stand, 0, false);
    time::wait_until(PATIENCE_US, || STANDING.load(Ordering::Acquire))
}

/// Brings a CPU down by INIT, and up again from its start-up code. Whatever it was doing is lost, but a lock that it held then would
/// be held for ever: it must be in an interrupt, [`stand_still`] sees to that.
pub fn restart(area: &'static PerCpu) -> bool {
    percpu::set_offline(area);
    start(area)
}

/// The RESCHEDULE IPI: only the way out of the interrupt matters.
fn reschedule(_frame: &mut crate::arch::frame::Frame) {
    this_cpu().need_resched.store(1, Ordering::Relaxed);
    apic::eoi();
}

/// Asks another CPU to look at its run queue.
pub fn send_reschedule(area: &PerCpu) {
    apic::send_to(area.apic_id.load(Ordering::Relaxed), vectors::RESCHEDULE);
}
