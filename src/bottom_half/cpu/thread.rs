//! The softirq thread of a CPU: goes on with what was too much for the owner, at a lower priority.

use std::sync::Arc;

use super::Cpu;
use crate::protocol::serving::Left;
use crate::sync::Ordering;

/// Behind the threads that it works for, but with a share that counts: a fourth of a processor that one of them keeps busy (Linux:
/// Documentation/scheduler/sched-nice-design.rst). With the lowest priority it had a hundredth: a guest that kept its CPU busy until
/// its packets were sent got a turn of them every 100 ms.
const NICE: i32 = 5;

/// The thread's life: until the system stops.
pub(crate) fn run(cpu: &Arc<Cpu>) {
    sys::thread::set_name(&format!("softirq/{}", cpu.index));
    if let Err(e) = sys::thread::set_nice(NICE) {
        log::debug!("softirq/{} keeps its priority: {e}", cpu.index);
    }
    loop {
        let seen = cpu.thread_wake.value();
        if cpu.shared.stopping.load(Ordering::Acquire) {
            return;
        }
        if !cpu.serving.is_handed_over() {
            let _ = cpu.thread_wake.wait(seen, None);
            continue;
        }
        let pending = cpu.serving.take();
        let cpu_in = |vector: u64| cpu.thread_in.store(vector, Ordering::Relaxed);
        cpu_in(u64::from(pending));
        cpu.round(pending, || cpu.serving.is_wanted() || cpu.shared.stopping.load(Ordering::Acquire));
        cpu_in(0);
        match cpu.serving.release_by_thread() {
            Left::ToOwner => cpu.owner_wake.wake_all(),
            // Its owner may sleep without a deadline.
            Left::Nothing => cpu.timers.announce_again(),
            Left::More => {}
        }
    }
}
