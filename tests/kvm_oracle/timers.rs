//! Timers, by order only: what has come when a count has ended, and which of two ends first. Ours has a clock to step;
//! KVM's is waited for.

use std::thread;
use std::time::{Duration, Instant};

use irqchip::lapic::{Deadline, Now};
use x86::apic::{Lvt, TimerMode, reg};
use x86::msr::{IA32_TSC, IA32_TSC_DEADLINE};

use crate::apic::{Answer, ApicRig, Op};
use crate::guest::Stub;
use crate::host::{Given, Host};

/// After this long KVM's timer has not fired but failed.
const LIMIT: Duration = Duration::from_secs(20);
/// Counts of a race: far enough apart for the order to be certain unless this thread is held up between them.
const SHORT: u32 = 20_000;

fn long() -> u32 {
    if Host::get().emulated { 5_000_000 } else { 60_000 }
}

/// A count of `ticks`, which is waited for: one-shot, or the first period.
pub fn count_ends(rig: &mut ApicRig, op: &Op, cpu: usize, ticks: u32) -> Result<(), String> {
    let lvt = timer(rig, cpu);
    let periodic = lvt.timer_mode() == TimerMode::Periodic;
    let counts = periodic || lvt.timer_mode() == TimerMode::OneShot;
    if ticks == 0 || !counts || (!lvt.masked() && !can_see(rig, cpu, lvt)) || (lvt.masked() && periodic) {
        return Ok(());
    }
    rig.ours.write_count(cpu, ticks);
    let result = (|| {
        rig.write_register(cpu, reg::TIMER_INITIAL, ticks)?;
        wait(rig, &[cpu])
    })();
    said(result, "a count")?;
    step_to_deadline(rig, cpu);
    rig.saw("counts that ended");
    if !periodic {
        rig.compare(op)?;
    }
    stop(rig, op, &[cpu])
}

/// A TSC deadline, which is waited for.
pub fn deadline_passes(rig: &mut ApicRig, op: &Op, cpu: usize) -> Result<(), String> {
    let lvt = timer(rig, cpu);
    if lvt.timer_mode() != TimerMode::TscDeadline || !can_see(rig, cpu, lvt) || lvt.masked() {
        return Ok(());
    }
    let result = (|| {
        let soon = rig.kvms.cpus[cpu].msr(IA32_TSC)?.unwrap_or(0) + 20_000;
        let answer = rig.write_msr(cpu, IA32_TSC_DEADLINE, soon)?;
        wait(rig, &[cpu]).map(|fired| (soon, answer, fired))
    })();
    let (soon, answer, fired) = result.map_err(|e| e.to_string())?;
    if rig.ours.write_msr(cpu, IA32_TSC_DEADLINE, soon).is_err() || answer != Answer::Nothing {
        return Err(format!("a TSC deadline is refused: by KVM {answer:?}"));
    }
    said(Ok(fired), "a TSC deadline")?;
    step_to_deadline(rig, cpu);
    rig.saw("TSC deadlines that passed");
    rig.compare(op)
}

/// A long count on one, then a short one on another: the short one ends first.
pub fn race(rig: &mut ApicRig, op: &Op, slow: usize, fast: usize) -> Result<(), String> {
    let ready = |cpu| {
        let lvt = timer(rig, cpu);
        let same_rate = rig.ours.apics[cpu].page(0)[reg::TIMER_DIVIDE as usize >> 4]
            == rig.ours.apics[slow].page(0)[reg::TIMER_DIVIDE as usize >> 4];
        lvt.timer_mode() == TimerMode::OneShot && !lvt.masked() && can_see(rig, cpu, lvt) && same_rate
    };
    if !ready(slow) || !ready(fast) {
        return Ok(());
    }
    let long = long();
    rig.ours.write_count(slow, long);
    rig.ours.write_count(fast, SHORT);
    let result = (|| {
        let begin = Instant::now();
        rig.write_register(slow, reg::TIMER_INITIAL, long)?;
        rig.write_register(fast, reg::TIMER_INITIAL, SHORT)?;
        // Between the two writes less time has gone by than the counts differ by, at the least divisor.
        let certain = begin.elapsed() < Duration::from_nanos((long - SHORT).into());
        let start = Instant::now();
        // The slow one is looked at first: if it has ended, the other one has.
        while rig.kvms.lapic(slow)?.register(reg::TIMER_CURRENT) != 0 && start.elapsed() < LIMIT {
            thread::yield_now();
        }
        let in_order = rig.kvms.lapic(fast)?.register(reg::TIMER_CURRENT) == 0;
        wait(rig, &[slow, fast]).map(|fired| (certain, in_order, fired))
    })();
    let (certain, in_order, fired) = result.map_err(|e| e.to_string())?;
    said(Ok(fired), "one of two counts")?;
    if certain && !in_order {
        return Err("KVM's long count ended before the short one".to_owned());
    }
    step_to_deadline(rig, fast);
    let vector = timer(rig, slow).vector();
    if rig.ours.apics[slow].irr().contains(vector) {
        return Err("our long count ended before the short one".to_owned());
    }
    step_to_deadline(rig, slow);
    rig.saw(if certain { "races" } else { "races that may have gone either way" });
    rig.compare(op)?;
    stop(rig, op, &[slow, fast])
}

/// No count goes on, nor is one left that has ended: KVM would end it once more when its state is set.
fn stop(rig: &mut ApicRig, op: &Op, cpus: &[usize]) -> Result<(), String> {
    for &cpu in cpus {
        rig.ours.write_count(cpu, 0);
        rig.write_register(cpu, reg::TIMER_INITIAL, 0).map_err(|e| e.to_string())?;
    }
    rig.compare(op)
}

fn timer(rig: &ApicRig, cpu: usize) -> Lvt {
    Lvt::from_bits(rig.ours.apics[cpu].page(0)[reg::LVT_TIMER as usize >> 4])
}

/// The interrupt will show: a legal vector that is not requested yet.
fn can_see(rig: &ApicRig, cpu: usize, lvt: Lvt) -> bool {
    lvt.vector() >= 16 && !rig.ours.apics[cpu].irr().contains(lvt.vector())
}

fn said(result: Result<bool, kvm::Error>, what: &str) -> Result<(), String> {
    match result {
        Ok(true) => Ok(()),
        Ok(false) => Err(format!("KVM does not end {what} in {LIMIT:?}")),
        Err(e) => Err(e.to_string()),
    }
}

/// Waits until KVM's timers have ended and their interrupts have come; false if they don't.
fn wait(rig: &mut ApicRig, cpus: &[usize]) -> Result<bool, kvm::Error> {
    let start = Instant::now();
    for &cpu in cpus {
        let lvt = timer(rig, cpu);
        let vector = u32::from(lvt.vector());
        loop {
            // KVM puts the interrupt into IRR when its processor next runs and exits.
            rig.kvms.run(cpu, Stub::ExitToKvm, Given::default())?;
            let page = rig.kvms.lapic(cpu)?;
            let requested = page.register(reg::IRR + (vector >> 5) * 0x10) >> (vector & 31) & 1 == 1;
            let ended = lvt.timer_mode() != TimerMode::OneShot || page.register(reg::TIMER_CURRENT) == 0;
            if ended && (requested || lvt.masked()) {
                break;
            }
            if start.elapsed() > LIMIT {
                return Ok(false);
            }
            thread::yield_now();
        }
    }
    Ok(true)
}

fn step_to_deadline(rig: &mut ApicRig, cpu: usize) {
    let now = rig.ours.now;
    match rig.ours.apics[cpu].next_deadline() {
        Some(Deadline::At(ns)) => rig.ours.advance(Now { ns: ns.max(now.ns), ..now }),
        Some(Deadline::Tsc(tsc)) => rig.ours.pass_deadline(cpu, tsc),
        None => {}
    }
}
