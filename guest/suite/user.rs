//! C22, C23 and C26: programs that are made and ended at run time, what they ask for, and what they are told.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use kernel::arch::{fpu, percpu, traps};
use kernel::sched::{PreemptGuard, Task, sleep};
use kernel::testing::{Failure, TestResult};
use kernel::time::tick;
use kernel::user::signal::{self, Signal};
use kernel::user::{self, programs};
use kernel::{check, check_eq, heap, probe, test, wait};
use x86::test_record::Needs;

test!("user.programs_are_made_and_end", [22], made_and_end);
test!("user.enters_by_system_call", [1, 22], system_calls);
test!("user.is_preempted_and_goes_on", [21, 22, 23], preempted);
test!("user.runs_on_several_cpus", [22], several_cpus; .cpus(2));
test!("user.floating_point_registers_are_its_own", [22], own_registers);
test!("user.floating_point_is_switched_lazily", [22], lazy; .needs(Needs::PROCESSOR));
test!("signal.exceptions_end_the_program_and_not_the_kernel", [26], exceptions_end);
test!("signal.exceptions_run_the_handler", [26], exceptions_run_handlers);
test!("signal.traps_and_overflow", [26], needs_processor; .needs(Needs::PROCESSOR));
test!("signal.alignment_check", [26], alignment_check);
test!("signal.vector_exception", [26], vector_exception);
test!("signal.table_is_the_classic_one", [26], table);
test!("signal.same_exception_in_the_kernel_is_fatal", [4, 26], fatal_in_kernel);
test!("signal.handler_runs_on_the_way_out_of_an_interrupt", [23, 26], during_ring_three);
test!("signal.wakes_a_program_that_waits_for_it", [23, 26], wakes);
test!("signal.blocked_one_stays_pending", [26], blocked);
test!("signal.kill_ends_a_program_in_ring_three", [23, 26], kill; .cpus(2));
test!("signal.bad_stack_ends_the_program", [4, 26], bad_stack);

fn exec(cpu: usize, code: &[u8], arguments: [u64; 2]) -> Result<Arc<Task>, Failure> {
    user::exec("program", cpu, code, arguments).ok_or_else(|| Failure::new(format_args!("no memory for a program")))
}

fn made_and_end() -> TestResult {
    check_eq!(exec(0, programs::add(), [40, 2])?.join(), 42, "its exit code");
    let before = heap::used();
    for n in 0..20 {
        check_eq!(exec(0, programs::add(), [n, 1])?.join(), n as i32 + 1, "exit code {n}");
    }
    wait::for_condition(|| heap::used() < before + 4096)?;
    check!(user::exec("long", 0, &[0; 4097], [0; 2]).is_none(), "more code than a page");
    Ok(())
}

fn system_calls() -> TestResult {
    let task = exec(0, programs::talk(), [0; 2])?;
    check_eq!(task.join(), task.pid as i32 & 0xff, "its exit code");
    check_eq!(task.system_calls.load(Ordering::Relaxed), 5, "system calls");
    Ok(())
}

/// Programs that never enter the kernel by themselves share a CPU with this thread.
fn preempted() -> TestResult {
    let _tick = tick::start();
    let tasks = [exec(0, programs::spin(), [0; 2])?, exec(0, programs::spin(), [0; 2])?];
    let shared = (0..200).any(|_| {
        sleep::schedule_timeout(1);
        tasks.iter().all(|task| task.switches.load(Ordering::Relaxed) >= 2)
    });
    tasks.iter().for_each(|task| signal::send(task, Signal::Kill as u8));
    let codes = tasks.each_ref().map(|task| task.join());
    check!(shared, "they did not take turns");
    check_eq!(codes, [128 + 9; 2], "exit codes");
    check!(tasks.iter().all(|task| task.cpu_time() > 0), "a program that has used no time");
    Ok(())
}

fn several_cpus() -> TestResult {
    let cpus: Vec<_> = percpu::cpus().map(|cpu| cpu.number()).collect();
    let tasks: Result<Vec<_>, _> = cpus.iter().map(|&cpu| exec(cpu, programs::add(), [cpu as u64, 1])).collect();
    for (cpu, task) in cpus.iter().zip(tasks?) {
        check_eq!((task.join(), task.cpu()), (*cpu as i32 + 1, *cpu), "exit code and CPU");
    }
    Ok(())
}

/// Three programs with values of their own in the same registers, one CPU.
fn own_registers() -> TestResult {
    const TURNS: u64 = 5;
    let guard = PreemptGuard::new();
    let tasks = [11, 22, 33].map(|value| exec(0, programs::float(), [value, TURNS]));
    drop(guard);
    let mut faults = 0;
    for task in tasks {
        let task = task?;
        check_eq!(task.join(), 0, "a program whose registers were changed");
        faults += task.fpu_faults();
    }
    // The first turn of each needs an exception, and each turn one at most.
    if fpu::is_lazy() {
        check!((4..=3 * (TURNS + 2)).contains(&faults), "{faults} exceptions");
    }
    Ok(())
}

/// Alone it keeps its registers, although other threads that do not use them run in between.
fn lazy() -> TestResult {
    let task = exec(0, programs::float(), [7, 20])?;
    let other = kernel::sched::task::kthread_run("test", 0, kernel::sched::Priority::Normal, || {
        (0..20).for_each(|_| kernel::sched::yield_now());
        0
    });
    check_eq!((task.join(), other.join()), (0, 0), "exit codes");
    check_eq!(task.fpu_faults(), 1, "exceptions");
    Ok(())
}

/// Exceptions that a program can cause anywhere, and their signals.
const EXCEPTIONS: [(u64, Signal); 6] =
    [(0, Signal::Fpe), (3, Signal::Trap), (6, Signal::Ill), (13, Signal::Segv), (14, Signal::Segv), (16, Signal::Fpe)];
/// Those that need a processor for it.
const PROCESSOR_EXCEPTIONS: [(u64, Signal); 2] = [(1, Signal::Trap), (4, Signal::Segv)];

fn ends(exceptions: &[(u64, Signal)]) -> TestResult {
    for &(vector, signal) in exceptions {
        let task = exec(0, programs::fault(), [vector, 0])?;
        check_eq!(task.join(), 128 + signal as i32, "exit code after exception {vector}");
    }
    check_eq!(exec(0, programs::add(), [1, 2])?.join(), 3, "a program afterwards");
    Ok(())
}

fn runs_handler(exceptions: &[(u64, Signal)]) -> TestResult {
    for &(vector, signal) in exceptions {
        let task = exec(0, programs::fault(), [vector, signal as u64])?;
        check_eq!(task.join(), 64 + signal as i32, "what the handler of exception {vector} has said");
    }
    Ok(())
}

fn exceptions_end() -> TestResult {
    ends(&EXCEPTIONS)?;
    // A stack fault; emulators give a general-protection fault.
    let code = exec(0, programs::fault(), [12, 0])?.join();
    let signals = [Signal::Bus, Signal::Segv].map(|signal| 128 + signal as i32);
    check!(signals.contains(&code), "exit code after a stack fault: {code}");
    Ok(())
}

fn exceptions_run_handlers() -> TestResult {
    runs_handler(&EXCEPTIONS)
}

fn needs_processor() -> TestResult {
    ends(&PROCESSOR_EXCEPTIONS)?;
    runs_handler(&PROCESSOR_EXCEPTIONS)
}

/// Emulators do not have all exceptions.
fn where_there_is(vector: u64, signal: Signal) -> TestResult {
    if exec(0, programs::fault(), [vector, 0])?.join() == 1 {
        return Err(Failure::skip(format_args!("the processor does not cause exception {vector}")));
    }
    ends(&[(vector, signal)])?;
    runs_handler(&[(vector, signal)])
}

fn alignment_check() -> TestResult {
    where_there_is(17, Signal::Bus)
}

fn vector_exception() -> TestResult {
    where_there_is(19, Signal::Fpe)
}

fn table() -> TestResult {
    let expected = [
        (0, Signal::Fpe),
        (1, Signal::Trap),
        (3, Signal::Trap),
        (4, Signal::Segv),
        (5, Signal::Segv),
        (6, Signal::Ill),
        (9, Signal::Fpe),
        (10, Signal::Segv),
        (11, Signal::Bus),
        (12, Signal::Bus),
        (13, Signal::Segv),
        (14, Signal::Segv),
        (16, Signal::Fpe),
        (17, Signal::Bus),
        (19, Signal::Fpe),
    ];
    for (vector, signal) in expected {
        check_eq!(Signal::of_exception(vector), signal, "the signal of exception {vector}");
    }
    Ok(())
}

fn fatal_in_kernel() -> TestResult {
    for round in 0..2 {
        check!(traps::catch_double_fault(probe::undefined_without_fixup), "round {round} was not fatal");
    }
    check!(probe::undefined_instruction().is_some_and(|caught| caught.vector == 6), "the same with a fixup");
    Ok(())
}

/// The program never makes a system call: the way out of interrupts is the only one for the signals.
fn during_ring_three() -> TestResult {
    const SIGNALS: u64 = 3;
    let _tick = tick::start();
    let task = exec(0, programs::signals(), [0, SIGNALS])?;
    // It must have set its handler.
    let ready = (0..100).any(|_| {
        sleep::schedule_timeout(1);
        task.system_calls.load(Ordering::Relaxed) >= 1
    });
    let mut sent = 0;
    for _ in 0..100 {
        signal::send(&task, Signal::Usr1 as u8);
        sent += 1;
        sleep::schedule_timeout(1);
        if task.is_dead() {
            break;
        }
    }
    if !task.is_dead() {
        signal::send(&task, Signal::Kill as u8);
    }
    let code = task.join();
    check!(ready, "it did not set its handler");
    // More, if it did not get the CPU between two of them.
    check!((SIGNALS as i32..=sent).contains(&code), "it has counted {code} signals of {sent}");
    Ok(())
}

fn wakes() -> TestResult {
    let task = exec(0, programs::signals(), [1, 2])?;
    for _ in 0..2 {
        wait::for_condition(|| task.is_waiting())?;
        signal::send(&task, Signal::Usr1 as u8);
    }
    check_eq!(task.join(), 2, "signals that it has counted");
    Ok(())
}

fn blocked() -> TestResult {
    check_eq!(exec(0, programs::block(), [0; 2])?.join(), 0, "the look that was wrong");
    Ok(())
}

fn kill() -> TestResult {
    let task = exec(1, programs::spin(), [0; 2])?;
    wait::for_condition(|| task.cpu_time() > 0)?;
    signal::send(&task, Signal::Kill as u8);
    check_eq!(task.join(), 128 + Signal::Kill as i32, "its exit code");
    Ok(())
}

/// A handler that has nowhere to put the registers.
fn bad_stack() -> TestResult {
    let task = exec(0, programs::lose_stack(), [0; 2])?;
    check_eq!(task.join(), 128 + Signal::Segv as i32, "its exit code");
    Ok(())
}
