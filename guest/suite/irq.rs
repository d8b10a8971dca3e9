//! C14 and C25: interrupt descriptors. Lines are raised by code here (an IPI on the line's vector is what a message would be);
//! those of real devices and of the host are in other files.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use kernel::arch::percpu::{self, this_cpu};
use kernel::arch::{paging, uaccess, vectors};
use kernel::chips::apic;
use kernel::irq::chip::Chip;
use kernel::irq::desc::{Action, IrqReturn, State, desc, irq_of};
use kernel::irq::flow::{Flow, JUDGED_AT_A_TIME, generic_handle_irq};
use kernel::irq::manage::{self, IrqError};
use kernel::irq::{entry, proc};
use kernel::smp::{self, call, tlb};
use kernel::sync::{disable_interrupts, enable_interrupts, without_interrupts};
use kernel::testing::{Failure, TestResult};
use kernel::{check, check_eq, test, wait};

test!("irq.request_and_free", [14], request_and_free);
test!("irq.sharing_needs_everybodys_consent", [14], sharing);
test!("irq.shared_handlers_all_run", [14], shared_handlers);
test!("irq.dynamic_numbers_come_and_go", [14], dynamic);
test!("irq.disable_nests", [14], disable_nests);
test!("irq.what_comes_while_disabled_is_sent_again", [14], resend);
test!("irq.many_while_disabled_are_one", [14], resend_once);
test!("irq.edge_during_its_handler_is_not_lost", [14], edge_during_handler);
test!("irq.simple_flow_runs_again_for_what_came_meanwhile", [14], simple_pending);
test!("irq.handlers_never_run_twice_at_once", [14], never_twice; .cpus(2));
test!("irq.per_cpu_flow_runs_on_several_cpus", [14], per_cpu; .cpus(2));
test!("irq.disable_waits_for_the_handler", [14], disable_waits; .cpus(2));
test!("irq.free_waits_for_the_handler", [14], free_waits; .cpus(2));
test!("irq.line_nobody_wants_is_switched_off", [14], nobody_cared);
test!("irq.line_somebody_wants_now_and_then_stays", [14], somebody_cares);
test!("irq.handlers_do_not_block", [8, 14], do_not_block);
test!("irq.handler_with_interrupts_on_is_interrupted", [8], nested);
test!("irq.nesting_is_counted_to_its_depth", [8], nesting_depth);
test!("irq.accounting_is_per_cpu", [25], accounting; .cpus(2));
test!("irq.table_looks_like_proc_interrupts", [25], table);
test!("irq.table_has_a_row_for_each_ipi_and_exception", [25], rows; .cpus(2));

/// A number of this test's own; given back when dropped.
pub struct Number {
    pub irq: u32,
    pub vector: u8,
}

impl Number {
    pub fn new(chip: Chip, flow: Flow) -> Result<Self, Failure> {
        let irq = manage::create(chip, flow, 1).map_err(|e| Failure::new(format_args!("no number: {e:?}")))?;
        let vector = desc(irq).and_then(|desc| desc.vector()).unwrap_or(0);
        Ok(Self { irq, vector })
    }

    /// Raises it on this CPU, and lets it in.
    pub fn raise(&self) {
        apic::send_to(apic::id(), self.vector);
    }

    fn action(&self, handler: fn(u32, usize) -> IrqReturn, device: usize) -> TestResult {
        done(manage::request(self.irq, Action { handler, thread: None, device, name: "test", shared: true }))
    }

    pub fn state(&self) -> State {
        desc(self.irq).map_or(State::empty(), |desc| desc.state())
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        // The test's actions, whichever are left.
        for device in 0..4 {
            let _ = manage::free(self.irq, device);
        }
        let _ = manage::tear_down(self.irq);
    }
}

pub fn done<T>(result: Result<T, IrqError>) -> Result<T, Failure> {
    result.map_err(|e| Failure::new(format_args!("refused: {e:?}")))
}

static COUNT: AtomicU32 = AtomicU32::new(0);
static OTHER: AtomicU32 = AtomicU32::new(0);

fn reset() {
    COUNT.store(0, Ordering::Relaxed);
    OTHER.store(0, Ordering::Relaxed);
}

fn count() -> u32 {
    COUNT.load(Ordering::Relaxed)
}

fn counting(_: u32, _: usize) -> IrqReturn {
    COUNT.fetch_add(1, Ordering::Relaxed);
    IrqReturn::Handled
}

fn not_mine(_: u32, _: usize) -> IrqReturn {
    OTHER.fetch_add(1, Ordering::Relaxed);
    IrqReturn::None
}

fn request_and_free() -> TestResult {
    reset();
    let number = Number::new(Chip::Msi, Flow::Edge)?;
    check_eq!(irq_of(number.vector), Some(number.irq), "the vector's number");
    check!(number.state().contains(State::DISABLED), "it is enabled before anybody asked");
    number.action(counting, 0)?;
    check!(!number.state().contains(State::DISABLED), "it is still disabled");
    for n in 1..=3 {
        number.raise();
        wait::for_condition(|| count() == n)?;
    }
    check_eq!(desc(number.irq).map(|desc| desc.total()), Some(3), "its count");
    done(manage::free(number.irq, 0))?;
    check_eq!(manage::free(number.irq, 0), Err(IrqError::NotRequested), "freeing twice");
    number.raise();
    wait::for_condition(|| desc(number.irq).is_some_and(|desc| desc.total() == 4))?;
    check_eq!(count(), 3, "calls of a freed handler");
    check_eq!(manage::request_simply(63, counting, "nobody"), Err(IrqError::NoSuchIrq), "a number that is not set up");
    check_eq!(manage::request_simply(1000, counting, "nobody"), Err(IrqError::NoSuchIrq), "a number beyond the last");
    Ok(())
}

fn sharing() -> TestResult {
    let number = Number::new(Chip::Msi, Flow::Edge)?;
    let alone = Action { handler: counting, thread: None, device: 0, name: "alone", shared: false };
    done(manage::request(number.irq, alone))?;
    let shared = Action { device: 1, shared: true, ..alone };
    check_eq!(manage::request(number.irq, shared), Err(IrqError::Busy), "sharing with one who does not");
    done(manage::free(number.irq, 0))?;
    done(manage::request(number.irq, shared))?;
    check_eq!(manage::request(number.irq, alone), Err(IrqError::Busy), "not sharing with one who does");
    done(manage::request(number.irq, Action { device: 2, ..shared }))?;
    check_eq!(manage::tear_down(number.irq), Err(IrqError::Busy), "taking it apart in use");
    Ok(())
}

/// Each is asked, also after one has said that it was his: on a level line both may have something.
fn shared_handlers() -> TestResult {
    reset();
    let number = Number::new(Chip::Msi, Flow::Edge)?;
    number.action(counting, 0)?;
    number.action(not_mine, 1)?;
    number.action(counting, 2)?;
    number.raise();
    wait::for_condition(|| count() == 2)?;
    check_eq!(OTHER.load(Ordering::Relaxed), 1, "the one in the middle");
    done(manage::free(number.irq, 0))?;
    check!(!number.state().contains(State::DISABLED), "disabled although there are users left");
    number.raise();
    wait::for_condition(|| count() == 3)?;
    Ok(())
}

fn dynamic() -> TestResult {
    let first = Number::new(Chip::Msi, Flow::Edge)?;
    let second = Number::new(Chip::Msi, Flow::Edge)?;
    check!(first.irq != second.irq && first.vector != second.vector, "the same twice");
    let (irq, vector) = (first.irq, first.vector);
    drop(first);
    check_eq!(irq_of(vector), None, "the vector afterwards");
    let third = Number::new(Chip::Msi, Flow::Edge)?;
    check_eq!(third.irq, irq, "the number that came free");
    Ok(())
}

fn disable_nests() -> TestResult {
    reset();
    let number = Number::new(Chip::Msi, Flow::Edge)?;
    number.action(counting, 0)?;
    for depth in 1..=3 {
        done(manage::disable(number.irq))?;
        check_eq!(desc(number.irq).map(|desc| desc.depth()), Some(depth), "the depth");
    }
    number.raise();
    wait::for_condition(|| number.state().contains(State::PENDING))?;
    for _ in 0..2 {
        done(manage::enable(number.irq))?;
        check!(number.state().contains(State::DISABLED), "enabled too early");
        check_eq!(count(), 0, "calls while disabled");
    }
    done(manage::enable(number.irq))?;
    wait::for_condition(|| count() == 1)
}

fn resend() -> TestResult {
    reset();
    let number = Number::new(Chip::Msi, Flow::Edge)?;
    number.action(counting, 0)?;
    done(manage::disable(number.irq))?;
    number.raise();
    wait::for_condition(|| number.state().contains(State::PENDING))?;
    check_eq!(count(), 0, "calls while disabled");
    done(manage::enable(number.irq))?;
    wait::for_condition(|| count() == 1)?;
    check!(!number.state().contains(State::PENDING), "it is still pending");
    Ok(())
}

fn resend_once() -> TestResult {
    reset();
    let number = Number::new(Chip::Msi, Flow::Edge)?;
    number.action(counting, 0)?;
    done(manage::disable(number.irq))?;
    for n in 1..=4 {
        number.raise();
        wait::for_condition(|| desc(number.irq).is_some_and(|desc| desc.total() == n))?;
    }
    done(manage::enable(number.irq))?;
    wait::for_condition(|| count() == 1)?;
    // Whatever else was sent would come before this one.
    number.raise();
    wait::for_condition(|| count() == 2)
}

/// The handler lets interrupts in, and its own line comes again: noted, and handled in the same round, not nested.
fn edge_during_handler() -> TestResult {
    static VECTOR: AtomicUsize = AtomicUsize::new(0);
    static DEPTH: AtomicU32 = AtomicU32::new(0);
    static DEEPEST: AtomicU32 = AtomicU32::new(0);
    fn handler(irq: u32, _: usize) -> IrqReturn {
        DEEPEST.fetch_max(DEPTH.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        if COUNT.fetch_add(1, Ordering::Relaxed) == 0 {
            apic::send_to(apic::id(), VECTOR.load(Ordering::Relaxed) as u8);
            enable_interrupts();
            for _ in 0..100_000 {
                if desc(irq).is_some_and(|desc| desc.state().contains(State::PENDING)) {
                    break;
                }
                core::hint::spin_loop();
            }
            disable_interrupts();
        }
        DEPTH.fetch_sub(1, Ordering::Relaxed);
        IrqReturn::Handled
    }
    reset();
    DEEPEST.store(0, Ordering::Relaxed);
    let number = Number::new(Chip::Msi, Flow::Edge)?;
    VECTOR.store(number.vector.into(), Ordering::Relaxed);
    number.action(handler, 0)?;
    number.raise();
    wait::for_condition(|| count() == 2)?;
    check_eq!(DEEPEST.load(Ordering::Relaxed), 1, "handlers at once");
    check_eq!(desc(number.irq).map(|desc| desc.total()), Some(2), "its count");
    Ok(())
}

fn simple_pending() -> TestResult {
    fn handler(irq: u32, _: usize) -> IrqReturn {
        if COUNT.fetch_add(1, Ordering::Relaxed) < 2 {
            generic_handle_irq(irq);
        }
        IrqReturn::Handled
    }
    reset();
    let number = Number::new(Chip::Software, Flow::Simple)?;
    number.action(handler, 0)?;
    without_interrupts(|| generic_handle_irq(number.irq));
    check_eq!(count(), 3, "rounds");
    done(manage::disable(number.irq))?;
    without_interrupts(|| generic_handle_irq(number.irq));
    check_eq!(count(), 3, "rounds while disabled");
    done(manage::enable(number.irq))?;
    check_eq!(count(), 4, "rounds after enabling");
    Ok(())
}

static INSIDE: AtomicU32 = AtomicU32::new(0);
static MOST: AtomicU32 = AtomicU32::new(0);
static TARGET: AtomicU64 = AtomicU64::new(0);

fn slow(_: u32, _: usize) -> IrqReturn {
    MOST.fetch_max(INSIDE.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
    for _ in 0..100 {
        core::hint::spin_loop();
    }
    INSIDE.fetch_sub(1, Ordering::SeqCst);
    COUNT.fetch_add(1, Ordering::Relaxed);
    IrqReturn::Handled
}

fn raise_on_self(vector: usize) {
    apic::send_to(apic::id(), vector as u8);
}

/// The same number on several CPUs: one runs the handler, the others leave a note. No note is lost: the last raise is always followed
/// by a run.
fn never_twice() -> TestResult {
    reset();
    INSIDE.store(0, Ordering::SeqCst);
    MOST.store(0, Ordering::SeqCst);
    let number = Number::new(Chip::Msi, Flow::Edge)?;
    number.action(slow, 0)?;
    for round in 1..=50u64 {
        let before = count();
        for cpu in percpu::cpus() {
            call::call_on(cpu, raise_on_self, number.vector.into(), true);
        }
        wait::for_condition(|| {
            let state = number.state();
            count() > before
                && !state.intersects(State::INPROGRESS | State::PENDING)
                && desc(number.irq).is_some_and(|desc| desc.total() == round * machine_cpus())
        })?;
    }
    check_eq!(MOST.load(Ordering::SeqCst), 1, "handlers at once");
    Ok(())
}

fn machine_cpus() -> u64 {
    percpu::cpus().count() as u64
}

/// Each waits in the handler until the other is there, too: impossible if they kept each other out.
fn per_cpu() -> TestResult {
    fn handler(_: u32, _: usize) -> IrqReturn {
        INSIDE.fetch_add(1, Ordering::SeqCst);
        for _ in 0..10_000_000 {
            if INSIDE.load(Ordering::SeqCst) >= 2 {
                COUNT.fetch_add(1, Ordering::Relaxed);
                break;
            }
            core::hint::spin_loop();
        }
        IrqReturn::Handled
    }
    reset();
    INSIDE.store(0, Ordering::SeqCst);
    let number = Number::new(Chip::Msi, Flow::PerCpu)?;
    number.action(handler, 0)?;
    let Some(other) = percpu::cpu(1) else { return Err(Failure::new(format_args!("no second CPU"))) };
    call::call_on(other, raise_on_self, number.vector.into(), false);
    number.raise();
    wait::for_condition(|| count() == 2)
}

/// Runs on the second CPU until it is told to go on.
fn waits_for_release(_: u32, _: usize) -> IrqReturn {
    INSIDE.store(1, Ordering::SeqCst);
    while TARGET.load(Ordering::SeqCst) == 0 {
        core::hint::spin_loop();
    }
    for _ in 0..200 {
        core::hint::spin_loop();
    }
    INSIDE.store(0, Ordering::SeqCst);
    IrqReturn::Handled
}

fn with_handler_running(body: impl Fn(&Number) -> TestResult) -> TestResult {
    INSIDE.store(0, Ordering::SeqCst);
    TARGET.store(0, Ordering::SeqCst);
    let number = Number::new(Chip::Msi, Flow::Edge)?;
    number.action(waits_for_release, 0)?;
    let Some(other) = percpu::cpu(1) else { return Err(Failure::new(format_args!("no second CPU"))) };
    call::call_on(other, raise_on_self, number.vector.into(), false);
    let running = wait::for_condition(|| INSIDE.load(Ordering::SeqCst) == 1);
    let state = number.state();
    TARGET.store(1, Ordering::SeqCst);
    running?;
    check!(state.contains(State::INPROGRESS), "its handler runs and it is not in progress");
    body(&number)
}

fn disable_waits() -> TestResult {
    with_handler_running(|number| {
        done(manage::disable(number.irq))?;
        check_eq!(INSIDE.load(Ordering::SeqCst), 0, "handlers that run after disabling");
        Ok(())
    })
}

fn free_waits() -> TestResult {
    with_handler_running(|number| {
        done(manage::free(number.irq, 0))?;
        check_eq!(INSIDE.load(Ordering::SeqCst), 0, "handlers that run after freeing");
        Ok(())
    })
}

fn nobody_cared() -> TestResult {
    reset();
    let number = Number::new(Chip::Software, Flow::Simple)?;
    number.action(not_mine, 0)?;
    for _ in 0..JUDGED_AT_A_TIME + 100 {
        without_interrupts(|| generic_handle_irq(number.irq));
    }
    check_eq!(OTHER.load(Ordering::Relaxed), JUDGED_AT_A_TIME, "calls until it was switched off");
    check!(number.state().contains(State::SPURIOUS_DISABLED | State::DISABLED), "it is {:?}", number.state());
    // One that came is noted, so enabling runs it.
    done(manage::enable(number.irq))?;
    check_eq!(OTHER.load(Ordering::Relaxed), JUDGED_AT_A_TIME + 1, "calls after enabling it by hand");
    check!(!number.state().contains(State::SPURIOUS_DISABLED), "it is still switched off");
    Ok(())
}

fn somebody_cares() -> TestResult {
    fn sometimes(_: u32, _: usize) -> IrqReturn {
        if COUNT.fetch_add(1, Ordering::Relaxed).is_multiple_of(100) { IrqReturn::Handled } else { IrqReturn::None }
    }
    reset();
    let number = Number::new(Chip::Software, Flow::Simple)?;
    number.action(sometimes, 0)?;
    for _ in 0..2 * JUDGED_AT_A_TIME + 10 {
        without_interrupts(|| generic_handle_irq(number.irq));
    }
    check_eq!(count(), 2 * JUDGED_AT_A_TIME + 10, "calls");
    check!(!number.state().contains(State::DISABLED), "it was switched off");
    Ok(())
}

fn do_not_block() -> TestResult {
    fn handler(_: u32, _: usize) -> IrqReturn {
        COUNT.store(1 + u32::from(entry::may_block()), Ordering::Relaxed);
        enable_interrupts();
        OTHER.store(1 + u32::from(entry::may_block()), Ordering::Relaxed);
        disable_interrupts();
        IrqReturn::Handled
    }
    reset();
    let number = Number::new(Chip::Msi, Flow::Edge)?;
    number.action(handler, 0)?;
    check!(entry::may_block(), "a test may not wait");
    check!(!without_interrupts(entry::may_block), "waiting with interrupts off");
    number.raise();
    wait::for_condition(|| count() != 0)?;
    check_eq!((count(), OTHER.load(Ordering::Relaxed)), (1, 1), "what a handler may do");
    Ok(())
}

static LEVELS: AtomicU32 = AtomicU32::new(0);

/// Lets interrupts in and raises a vector of the next higher priority class, down to four levels.
fn nesting_handler(frame: &mut kernel::arch::frame::Frame) {
    let vector = frame.vector as u8;
    let level = LEVELS.fetch_add(1, Ordering::Relaxed) + 1;
    if entry::nesting() == level {
        COUNT.fetch_add(1, Ordering::Relaxed);
    }
    if level < 4 {
        apic::send_to(apic::id(), vector + 0x10);
        enable_interrupts();
        for _ in 0..100_000 {
            if LEVELS.load(Ordering::Relaxed) > level {
                break;
            }
            core::hint::spin_loop();
        }
        disable_interrupts();
    }
    apic::eoi();
}

fn nest() -> TestResult {
    reset();
    LEVELS.store(0, Ordering::Relaxed);
    for class in 4..8u8 {
        check!(vectors::claim(class * 0x10 + 5, nesting_handler), "vector {:#x} is taken", class * 0x10 + 5);
    }
    apic::send_to(apic::id(), 0x45);
    let result = wait::for_condition(|| LEVELS.load(Ordering::Relaxed) == 4);
    for class in 4..8u8 {
        vectors::release(class * 0x10 + 5);
    }
    result
}

fn nested() -> TestResult {
    nest()?;
    check_eq!(entry::nesting(), 0, "nesting afterwards");
    check!(!apic::anything_in_service(), "something is still in service");
    Ok(())
}

fn nesting_depth() -> TestResult {
    nest()?;
    check_eq!(count(), 4, "levels whose depth was right");
    check!(this_cpu().deepest.load(Ordering::Relaxed) >= 4, "the deepest nesting");
    Ok(())
}

fn accounting() -> TestResult {
    reset();
    let number = Number::new(Chip::Msi, Flow::Edge)?;
    number.action(counting, 0)?;
    for (n, cpu) in percpu::cpus().enumerate() {
        for _ in 0..=n {
            let before = count();
            call::call_on(cpu, raise_on_self, number.vector.into(), true);
            wait::for_condition(|| count() == before + 1)?;
        }
    }
    for (n, cpu) in percpu::cpus().enumerate() {
        let counted = desc(number.irq).map(|desc| desc.count_on(cpu.number()));
        check_eq!(counted, Some(n as u64 + 1), "interrupts on CPU {}", cpu.number());
        let vectors = cpu.vectors[usize::from(number.vector)].load(Ordering::Relaxed);
        check!(vectors > n as u64, "vector counts of CPU {}", cpu.number());
    }
    Ok(())
}

fn table() -> TestResult {
    reset();
    let number = Number::new(Chip::Msi, Flow::Edge)?;
    number.action(counting, 0)?;
    number.raise();
    wait::for_condition(|| count() == 1)?;
    let (mut header, mut row, mut rest) = (0, 0, 0);
    proc::show_interrupts(|line| {
        let mut words = line.split_ascii_whitespace();
        let first = words.next().unwrap_or_default();
        if first == "CPU0" {
            header = 1 + words.count();
        } else if first.strip_suffix(':').and_then(|irq| irq.parse().ok()) == Some(number.irq) {
            row = words.clone().take_while(|word| word.parse::<u64>().is_ok()).count();
            let sum: u64 = words.clone().take(row).filter_map(|word| word.parse::<u64>().ok()).sum();
            rest = usize::from(sum == 1 && words.any(|word| word == "test"));
        }
    });
    check_eq!((header, row, rest), (percpu::cpus().count(), percpu::cpus().count(), 1), "the table");
    Ok(())
}

/// The sum of a row of the table; none if it has no number for each CPU.
fn row(name: &str) -> Option<u64> {
    let mut sum = None;
    proc::show_interrupts(|line| {
        let Some((first, rest)) = line.split_once(':') else { return };
        let counts: Vec<_> = rest.split_ascii_whitespace().map_while(|word| word.parse::<u64>().ok()).collect();
        if first.trim() == name && counts.len() == percpu::cpus().count() {
            sum = Some(counts.iter().sum());
        }
    });
    sum
}

/// Has something happen on another CPU, or between it and this one.
type Cause = fn(&percpu::PerCpu);

/// Each happens once, on purpose; its row says so.
fn rows() -> TestResult {
    let Some(other) = percpu::cpu(1) else { return Err(Failure::new(format_args!("no second CPU"))) };
    for name in ["NMI", "LOC", "SPU", "RES", "CAL", "TLB", "MCE", "DFR", "PFT"] {
        check!(row(name).is_some(), "no row {name} with a column for each CPU");
    }
    let causes: [(&str, Cause); 5] = [
        ("RES", smp::send_reschedule),
        ("CAL", |cpu| call::call_on(cpu, |_| {}, 0, true)),
        ("TLB", |_| tlb::shoot_down(paging::KERNEL_BASE)),
        ("NMI", |cpu| apic::send_nmi(cpu.apic_id.load(Ordering::Relaxed))),
        ("PFT", |_| _ = uaccess::try_read(paging::KERNEL_BASE)),
    ];
    for (name, cause) in causes {
        // A shoot-down interrupts all other CPUs.
        let expected = if name == "TLB" { machine_cpus() - 1 } else { 1 };
        for attempt in 1.. {
            let wanted = row(name).map(|count| count + expected);
            cause(other);
            wait::for_condition(|| row(name) >= wanted)?;
            let now = row(name);
            if now == wanted {
                break;
            }
            // QEMU's nested SVM enters a handler twice now and then; a table that counts wrongly does so each time.
            check!(attempt < 3, "row {name}: {now:?}, expected {wanted:?}");
        }
    }
    Ok(())
}
