//! C13: interprocessor interrupts, and what is built on them.

use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use kernel::arch::frame::Frame;
use kernel::arch::paging::{self, Flags, KERNEL_BASE};
use kernel::arch::percpu::{self, PerCpu, this_cpu};
use kernel::arch::uaccess::try_read;
use kernel::arch::{nmi, vectors};
use kernel::chips::apic;
use kernel::smp::{self, call, tlb};
use kernel::sync::without_interrupts;
use kernel::testing::{Failure, TestResult, not_on_qemu_tcg};
use kernel::{check, check_eq, probe, test, wait};
use x86::apic::{DeliveryMode, Shorthand};
use x86::test_record::Modes;

use crate::apic::with_vectors;

test!("ipi.self_by_id_and_by_shorthand", [13], to_self);
test!("ipi.one_other", [13], one_other; .cpus(2));
test!("ipi.all_and_all_but_self", [13], shorthands; .cpus(2));
test!("ipi.logical_mask", [12, 13], logical_mask; .cpus(2));
test!("ipi.lowest_priority_goes_to_one", [12, 13], lowest_priority; .cpus(2));
test!("ipi.lowest_priority_takes_the_lowest", [12, 13], lowest_takes_lowest; .cpus(2).modes(Modes::USER));
test!("ipi.broadcast_id_reaches_all", [12, 13], broadcast; .cpus(2));
test!("ipi.nmi_to_one_and_to_all_but_self", [7, 13], nmis; .cpus(2));
test!("ipi.wakes_a_halted_cpu", [13], wakes; .cpus(2));
test!("ipi.init_and_start_up_again", [13], restart; .cpus(2).limit_ms(30_000));
test!("ipi.init_forgets_what_is_in_service", [11, 13], init_in_service; .cpus(2).limit_ms(30_000));
test!("ipi.start_up_of_a_running_cpu_is_ignored", [13], start_up_while_running; .cpus(2));
test!("ipi.call_function_waits", [13], call_waits; .cpus(2));
test!("ipi.calls_run_in_order", [13], calls_in_order; .cpus(2));
test!("ipi.calls_share_an_interrupt", [13], calls_merge; .cpus(2));
test!("ipi.cpus_call_each_other_with_interrupts_off", [13], calls_cross; .cpus(2));
test!("ipi.reschedule_is_noted", [13], reschedule; .cpus(2));
test!("ipi.shoot_down_leaves_no_stale_translation", [13], shoot_down; .cpus(2));
test!("ipi.shoot_downs_from_all_sides", [13], shoot_downs_cross; .cpus(2));

const VECTOR: u8 = 0x61;

static COUNTS: [AtomicU32; percpu::MAX_CPUS] = [const { AtomicU32::new(0) }; percpu::MAX_CPUS];

fn counting(_: &mut Frame) {
    COUNTS[this_cpu().number()].fetch_add(1, Ordering::SeqCst);
    apic::eoi();
}

fn count(cpu: usize) -> u32 {
    COUNTS[cpu].load(Ordering::SeqCst)
}

fn total() -> u32 {
    COUNTS.iter().map(|count| count.load(Ordering::SeqCst)).sum()
}

fn with_counts(body: impl FnOnce() -> TestResult) -> TestResult {
    COUNTS.iter().for_each(|count| count.store(0, Ordering::SeqCst));
    with_vectors(&[VECTOR], counting, body)
}

fn other() -> Result<&'static PerCpu, Failure> {
    percpu::cpu(1).ok_or_else(|| Failure::new(format_args!("no second CPU")))
}

fn id_of(cpu: &PerCpu) -> u32 {
    cpu.apic_id.load(Ordering::Relaxed)
}

fn cpus() -> u32 {
    percpu::cpus().count() as u32
}

/// Has every other CPU answer once, so that whatever was sent to it before has been delivered.
fn settle() {
    fn nothing(_: usize) {}
    call::call_on_others(nothing, 0, true);
}

fn to_self() -> TestResult {
    with_counts(|| {
        apic::send_to(apic::id(), VECTOR);
        wait::for_condition(|| count(0) == 1)?;
        apic::send_shorthand(Shorthand::Myself, VECTOR);
        wait::for_condition(|| count(0) == 2)?;
        check_eq!(total(), 2, "IPIs on all CPUs");
        Ok(())
    })
}

fn one_other() -> TestResult {
    with_counts(|| {
        for n in 1..=20 {
            apic::send_to(id_of(other()?), VECTOR);
            wait::for_condition(|| count(1) == n)?;
        }
        check_eq!(total(), 20, "IPIs on all CPUs");
        Ok(())
    })
}

fn shorthands() -> TestResult {
    with_counts(|| {
        apic::send_shorthand(Shorthand::AllButSelf, VECTOR);
        wait::for_condition(|| total() == cpus() - 1)?;
        check_eq!(count(0), 0, "the sender's");
        apic::send_shorthand(Shorthand::All, VECTOR);
        wait::for_condition(|| total() == 2 * cpus() - 1)?;
        check_eq!(count(0), 1, "the sender's");
        for cpu in 1..cpus() as usize {
            check_eq!(count(cpu), 2, "those of CPU {cpu}");
        }
        Ok(())
    })
}

/// Every set of CPUs by its mask, in the form that the mode wants.
fn logical_mask() -> TestResult {
    with_counts(|| {
        let mut expected = [0; percpu::MAX_CPUS];
        for mask in 1..1u32 << cpus().min(4) {
            let chosen = percpu::cpus().filter(|cpu| mask & 1 << cpu.number() != 0);
            let mut destination = 0;
            for cpu in chosen {
                expected[cpu.number()] += 1;
                let bit = if apic::in_x2apic() { id_of(cpu) & 15 } else { cpu.number() as u32 };
                destination |= 1 << bit;
            }
            apic::send(apic::message(DeliveryMode::Fixed, VECTOR, destination).with_logical(true));
            wait::for_condition(|| total() == expected.iter().sum::<u32>())?;
        }
        settle();
        for (cpu, expected) in expected.into_iter().enumerate() {
            check_eq!(count(cpu), expected, "those of CPU {cpu}");
        }
        Ok(())
    })
}

fn everybody() -> u32 {
    if apic::in_x2apic() { 0xffff } else { 0xff }
}

fn lowest_priority() -> TestResult {
    with_counts(|| {
        for n in 1..=16 {
            apic::send(apic::message(DeliveryMode::LowestPriority, VECTOR, everybody()).with_logical(true));
            wait::for_condition(|| total() >= n)?;
            settle();
            check_eq!(total(), n, "IPIs on all CPUs");
        }
        Ok(())
    })
}

/// This CPU runs at the highest priority, above what the others have while they are still in the handler of the one before: they take
/// all of them. KVM's own APICs choose by the vector.
fn lowest_takes_lowest() -> TestResult {
    not_on_qemu_tcg("arbitration by priority")?;
    with_counts(|| {
        apic::write(x86::apic::reg::TPR, 0xff);
        let result = (1..=8).try_for_each(|n| {
            apic::send(apic::message(DeliveryMode::LowestPriority, VECTOR, everybody()).with_logical(true));
            wait::for_condition(|| total() >= n)
        });
        apic::write(x86::apic::reg::TPR, 0);
        result?;
        settle();
        check_eq!(count(0), 0, "those that the busy CPU took");
        check_eq!(total(), 8, "IPIs on all CPUs");
        Ok(())
    })
}

fn broadcast() -> TestResult {
    with_counts(|| {
        let everyone = if apic::in_x2apic() { u32::MAX } else { 0xff };
        apic::send_to(everyone, VECTOR);
        wait::for_condition(|| total() == cpus())?;
        for cpu in 0..cpus() as usize {
            check_eq!(count(cpu), 1, "those of CPU {cpu}");
        }
        Ok(())
    })
}

fn nmis() -> TestResult {
    fn handler(_: &Frame) {
        COUNTS[this_cpu().number()].fetch_add(1, Ordering::SeqCst);
    }
    with_counts(|| {
        let old = nmi::set_handler(Some(handler));
        let result = (|| {
            apic::send_nmi(id_of(other()?));
            wait::for_condition(|| count(1) == 1)?;
            check_eq!(total(), 1, "NMIs on all CPUs");
            apic::send(apic::message(DeliveryMode::Nmi, 0, 0).with_shorthand_bits(3));
            wait::for_condition(|| total() == cpus())?;
            check_eq!(count(0), 0, "the sender's");
            Ok(())
        })();
        nmi::set_handler(old);
        result
    })
}

/// The other CPU idles in `sti; hlt`. Sent again and again at all distances from its going to sleep, none is lost.
fn wakes() -> TestResult {
    with_counts(|| {
        let rounds = if kernel::boot::info::boot_info().software_host() { 200 } else { 2000 };
        for n in 1..=rounds {
            apic::send_to(id_of(other()?), VECTOR);
            wait::for_condition(|| count(1) == n)?;
            for _ in 0..n % 61 {
                core::hint::spin_loop();
            }
        }
        settle();
        check_eq!(count(1), rounds, "IPIs that came");
        Ok(())
    })
}

fn restart() -> TestResult {
    with_counts(|| {
        let cpu = other()?;
        for round in 1..=5 {
            check!(smp::stand_still(cpu), "round {round}: it does not take the call");
            check!(smp::restart(cpu), "round {round}: it does not come up again");
            apic::send_to(id_of(cpu), VECTOR);
            wait::for_condition(|| count(1) == round)?;
        }
        Ok(())
    })
}

/// It is stopped in a handler that has not said EOI. Nothing holds back a lower vector when it is up again.
fn init_in_service() -> TestResult {
    const HOLD: u8 = 0x91;
    fn handler(frame: &mut Frame) {
        COUNTS[this_cpu().number()].fetch_add(1, Ordering::SeqCst);
        while frame.vector == u64::from(HOLD) {
            core::hint::spin_loop();
        }
        apic::eoi();
    }
    COUNTS.iter().for_each(|count| count.store(0, Ordering::SeqCst));
    with_vectors(&[VECTOR, HOLD], handler, || {
        let cpu = other()?;
        apic::send_to(id_of(cpu), HOLD);
        wait::for_condition(|| count(1) == 1)?;
        check!(smp::restart(cpu), "it does not come up again");
        apic::send_to(id_of(cpu), VECTOR);
        wait::for_condition(|| count(1) == 2)
    })
}

/// It is in the middle of something, and goes on with it.
fn start_up_while_running() -> TestResult {
    fn hold(_: usize) {
        SUM.store(1, Ordering::SeqCst);
        while ORDER.load(Ordering::SeqCst) == 0 {
            core::hint::spin_loop();
        }
        SUM.store(2, Ordering::SeqCst);
    }
    SUM.store(0, Ordering::SeqCst);
    ORDER.store(0, Ordering::SeqCst);
    let cpu = other()?;
    call::call_on(cpu, hold, 0, false);
    wait::for_condition(|| SUM.load(Ordering::SeqCst) == 1)?;
    // Any page: it does not begin there.
    apic::send(apic::message(DeliveryMode::StartUp, 8, id_of(cpu)));
    kernel::time::delay(2_000);
    ORDER.store(1, Ordering::SeqCst);
    wait::for_condition(|| SUM.load(Ordering::SeqCst) == 2)
}

static SUM: AtomicUsize = AtomicUsize::new(0);

fn call_waits() -> TestResult {
    fn add(n: usize) {
        if this_cpu().number() == 1 && kernel::irq::entry::in_hardirq() {
            SUM.fetch_add(n, Ordering::SeqCst);
        }
    }
    SUM.store(0, Ordering::SeqCst);
    for n in 1..=50 {
        call::call_on(other()?, add, n, true);
        // It has run when the call is over, not some time later.
        check_eq!(SUM.load(Ordering::SeqCst), n * (n + 1) / 2, "the sum after call {n}");
    }
    Ok(())
}

static ORDER: AtomicU64 = AtomicU64::new(0);

fn calls_in_order() -> TestResult {
    fn note(n: usize) {
        ORDER.store(ORDER.load(Ordering::SeqCst) << 4 | n as u64, Ordering::SeqCst);
    }
    ORDER.store(0, Ordering::SeqCst);
    for n in 1..=9 {
        call::call_on(other()?, note, n, false);
    }
    call::call_on(other()?, note, 10, true);
    check_eq!(ORDER.load(Ordering::SeqCst), 0x0012_3456_789a, "the order");
    Ok(())
}

/// While the other CPU can't take interrupts, calls pile up: they cost one interrupt.
fn calls_merge() -> TestResult {
    fn add(n: usize) {
        SUM.fetch_add(n, Ordering::SeqCst);
    }
    fn hold(_: usize) {
        SUM.store(1, Ordering::SeqCst);
        while ORDER.load(Ordering::SeqCst) == 0 {
            core::hint::spin_loop();
        }
    }
    SUM.store(0, Ordering::SeqCst);
    ORDER.store(0, Ordering::SeqCst);
    let cpu = other()?;
    let interrupts = || cpu.vectors[usize::from(vectors::CALL_FUNCTION)].load(Ordering::Relaxed);
    call::call_on(cpu, hold, 0, false);
    wait::for_condition(|| SUM.load(Ordering::SeqCst) == 1)?;
    let before = interrupts();
    for _ in 0..20 {
        call::call_on(cpu, add, 10, false);
    }
    ORDER.store(1, Ordering::SeqCst);
    wait::for_condition(|| SUM.load(Ordering::SeqCst) == 201)?;
    settle();
    check!(interrupts() <= before + 2, "{} interrupts for 20 calls", interrupts() - before);
    Ok(())
}

fn calls_cross() -> TestResult {
    fn add(n: usize) {
        SUM.fetch_add(n, Ordering::SeqCst);
    }
    fn call_back(rounds: usize) {
        // Interrupts are off here.
        let Some(first) = percpu::cpu(0) else { return };
        for _ in 0..rounds {
            call::call_on(first, add, 1, true);
        }
        ORDER.store(1, Ordering::SeqCst);
    }
    SUM.store(0, Ordering::SeqCst);
    ORDER.store(0, Ordering::SeqCst);
    let cpu = other()?;
    call::call_on(cpu, call_back, 50, false);
    without_interrupts(|| {
        for _ in 0..50 {
            call::call_on(cpu, add, 1, true);
        }
    });
    wait::for_condition(|| ORDER.load(Ordering::SeqCst) == 1)?;
    check_eq!(SUM.load(Ordering::SeqCst), 100, "calls");
    Ok(())
}

fn reschedule() -> TestResult {
    let cpu = other()?;
    cpu.need_resched.store(0, Ordering::SeqCst);
    let came = || cpu.vectors[usize::from(vectors::RESCHEDULE)].load(Ordering::Relaxed);
    let before = came();
    smp::send_reschedule(cpu);
    wait::for_condition(|| came() == before + 1)
}

const PLACE: u64 = KERNEL_BASE + 0x20_0000;

/// Reads the page on the other CPU: what it finds, or all ones for a fault.
fn read_remotely(cpu: &PerCpu, address: u64) -> u64 {
    static FOUND: AtomicU64 = AtomicU64::new(0);
    fn read(address: usize) {
        FOUND.store(try_read(address as u64).unwrap_or(u64::MAX), Ordering::SeqCst);
    }
    call::call_on(cpu, read, address as usize, true);
    FOUND.load(Ordering::SeqCst)
}

fn shoot_down() -> TestResult {
    let cpu = other()?;
    let no_memory = || Failure::new(format_args!("no memory"));
    let pages = [paging::allocate_page().ok_or_else(no_memory)?, paging::allocate_page().ok_or_else(no_memory)?];
    for (n, page) in pages.into_iter().enumerate() {
        paging::map(PLACE, page, Flags::PRESENT | Flags::WRITABLE | Flags::NO_EXECUTE);
        check!(probe::write_spare(PLACE, n as u64 + 1).is_ok(), "a fresh page can't be written");
    }
    tlb::shoot_down(PLACE);
    for round in 0..20usize {
        let n = round % 2;
        paging::map(PLACE, pages[n], Flags::PRESENT | Flags::NO_EXECUTE);
        tlb::shoot_down(PLACE);
        check_eq!(read_remotely(cpu, PLACE), n as u64 + 1, "what the other CPU sees in round {round}");
    }
    paging::unmap(PLACE);
    tlb::shoot_down(PLACE);
    check_eq!(read_remotely(cpu, PLACE), u64::MAX, "what the other CPU sees when it is gone");
    Ok(())
}

/// All CPUs shoot at once: each must answer the others while it waits for its turn.
fn shoot_downs_cross() -> TestResult {
    fn shoot(rounds: usize) {
        for _ in 0..rounds {
            tlb::shoot_down(PLACE + 0x1000);
        }
        SUM.fetch_add(1, Ordering::SeqCst);
    }
    SUM.store(0, Ordering::SeqCst);
    call::call_on_others(shoot, 20, false);
    shoot(20);
    wait::for_condition(|| SUM.load(Ordering::SeqCst) == cpus() as usize)
}
