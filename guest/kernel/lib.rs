//! A small SMP kernel that does the operating system's side of interrupt handling, to test machines with and to learn from.
//!
//! It runs in ring 0 without SSE and without what hosts that interpret ring 0 do not know; everything is mapped one to one.
//! Names are those that kernel people use. Start reading at [`boot`].

#![no_std]

extern crate alloc;

#[macro_use]
pub mod arch;
pub mod accounting;
pub mod acpi;
pub mod agent;
pub mod boot;
pub mod chips;
pub mod console;
pub mod heap;
pub mod irq;
pub mod machine;
pub mod measure;
mod memory_functions;
pub mod power;
pub mod probe;
pub mod random;
pub mod sched;
pub mod smp;
pub mod softirq;
pub mod storm;
pub mod sync;
pub mod tasklet;
pub mod testing;
pub mod time;
pub mod user;
pub mod wait;
pub mod watchdog;
pub mod workqueue;

use arch::{idt, percpu};
use boot::info::BootInfo;
use chips::{apic, i8259, ioapic};

/// The bootstrap processor comes here from its entry.
fn start_kernel(info: BootInfo) -> ! {
    info.publish();
    agent::init();
    machine::init();
    let calibration = time::calibrate::begin();
    irq::mark::init();
    idt::init();
    idt::load();
    match percpu::allocate(0) {
        Some(area) => percpu::install(area),
        None => power::die("no per-CPU area"),
    }
    i8259::init();
    ioapic::mask_all();
    apic::init(machine::use_x2apic());
    let me = percpu::this_cpu();
    me.apic_id.store(apic::id(), core::sync::atomic::Ordering::Relaxed);
    percpu::set_online(me);
    smp::init();
    softirq::init();
    tasklet::init();
    sched::init();
    softirq::start_thread(0);
    user::init();
    time::calibrate::init(calibration);
    time::clock::init();
    time::timer::init();
    time::hrtimer::init();
    smp::start_all(&machine::tables().cpus);
    x86_64::instructions::interrupts::enable();
    testing::main()
}
