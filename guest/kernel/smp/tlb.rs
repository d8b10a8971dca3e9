//! TLB shoot-down: when a mapping is taken away, every CPU must forget it before the page is used for something else.
//!
//! Who changed the table names the page, interrupts the others (INVALIDATE_TLB), and waits until each has said that it has forgotten. One
//! shoot-down at a time; who waits for its turn answers the one that runs, so that it works with interrupts off, too.
//!
//! To read more: Intel SDM vol. 3A, "Propagation of Paging-Structure Changes to Multiple Processors".

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use spin::Mutex;

use crate::arch::frame::Frame;
use crate::arch::paging;
use crate::arch::percpu::{self, this_cpu};
use crate::arch::vectors::INVALIDATE_TLB;
use crate::chips::apic;

static TURN: Mutex<()> = Mutex::new(());
static ADDRESS: AtomicU64 = AtomicU64::new(0);
/// A bit for each CPU that has not forgotten yet.
static WAITING: AtomicU32 = AtomicU32::new(0);

/// Does what this CPU was asked for, if it was.
fn answer() {
    let me = 1 << this_cpu().number();
    if WAITING.load(Ordering::Acquire) & me != 0 {
        paging::flush(ADDRESS.load(Ordering::Relaxed));
        WAITING.fetch_and(!me, Ordering::Release);
    }
}

/// The INVALIDATE_TLB interrupt.
pub(super) fn handle(_frame: &mut Frame) {
    answer();
    apic::eoi();
}

/// Makes all CPUs forget the page at `address`.
pub fn shoot_down(address: u64) {
    // Off from before the turn is taken: a handler on this CPU may want a turn of its own.
    crate::sync::without_interrupts(|| {
        let _turn = loop {
            match TURN.try_lock() {
                Some(turn) => break turn,
                None => answer(),
            }
            core::hint::spin_loop();
        };
        paging::flush(address);
        let me = this_cpu().number();
        let mask = percpu::cpus().fold(0, |mask, cpu| mask | 1 << cpu.number()) & !(1 << me);
        ADDRESS.store(address, Ordering::Relaxed);
        WAITING.store(mask, Ordering::Release);
        for cpu in percpu::cpus().filter(|cpu| mask & 1 << cpu.number() != 0) {
            apic::send_to(cpu.apic_id.load(Ordering::Relaxed), INVALIDATE_TLB);
        }
        while WAITING.load(Ordering::Acquire) != 0 {
            core::hint::spin_loop();
        }
    });
}
