//! C3 and C4: exceptions of the kernel, and the table of those that it survives.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use kernel::arch::frame::Frame;
use kernel::arch::paging::USER_BASE;
use kernel::arch::uaccess::{copy_from_user, copy_to_user, try_read};
use kernel::arch::{extable, traps};
use kernel::testing::TestResult;
use kernel::{check, check_eq, probe, test};

test!("exceptions.divide_error", [3, 4], divide_error);
test!("exceptions.invalid_opcode", [3, 4], invalid_opcode);
test!("exceptions.general_protection_has_its_error_code", [3, 4], general_protection);
test!("exceptions.stack_fault", [3, 4], stack_fault);
test!("exceptions.faults_return_to_the_instruction", [3], faults_return);
test!("exceptions.traps_return_behind_the_instruction", [3], traps_return);
test!("exceptions.frame_holds_every_register", [3], frame_is_whole);
test!("exceptions.table_knows_its_addresses", [4], table);
test!("exceptions.user_accessors_return_errors", [4], user_accessors);
test!("exceptions.copy_says_how_much_is_left", [4], partial_copy);

fn divide_error() -> TestResult {
    let caught = probe::divide_by_zero();
    check_eq!(caught.map(|c| (c.vector, c.error)), Some((0, 0)), "dividing by zero");
    Ok(())
}

fn invalid_opcode() -> TestResult {
    let caught = probe::undefined_instruction();
    check_eq!(caught.map(|c| (c.vector, c.error)), Some((6, 0)), "ud2");
    Ok(())
}

/// A missing error code is filled in as 0; a present one is the processor's.
fn general_protection() -> TestResult {
    let caught = probe::read_non_canonical();
    check_eq!(caught.map(|c| (c.vector, c.error)), Some((13, 0)), "a non-canonical address");
    let caught = probe::load_bad_selector();
    check_eq!(caught.map(|c| (c.vector, c.error)), Some((13, 0x1238)), "a selector beyond the GDT");
    Ok(())
}

fn stack_fault() -> TestResult {
    let caught = probe::read_non_canonical_stack();
    check!(caught.is_some_and(|c| matches!(c.vector, 12 | 13) && c.error == 0), "a non-canonical stack: {caught:x?}");
    Ok(())
}

static SEEN: AtomicU32 = AtomicU32::new(0);
static ADDRESS: AtomicU64 = AtomicU64::new(0);

/// The hook returns twice without repair: the instruction is executed again. The third time the table takes over.
fn faults_return() -> TestResult {
    fn hook(frame: &mut Frame) -> bool {
        let same = ADDRESS.swap(frame.rip, Ordering::Relaxed) == frame.rip;
        let seen = SEEN.fetch_add(1, Ordering::Relaxed);
        seen == 0 || (same && seen < 2)
    }
    SEEN.store(0, Ordering::Relaxed);
    let old = traps::set_hook(6, Some(hook));
    let caught = probe::undefined_instruction();
    traps::set_hook(6, old);
    check_eq!(caught.map(|c| c.vector), Some(6), "ud2 in the end");
    check_eq!(SEEN.load(Ordering::Relaxed), 3, "times that the same instruction faulted");
    Ok(())
}

/// A single step is a trap: its saved RIP is behind the instruction. Each NOP is one byte.
fn traps_return() -> TestResult {
    fn hook(frame: &mut Frame) -> bool {
        let last = ADDRESS.swap(frame.rip, Ordering::Relaxed);
        if frame.rip == last + 1 {
            SEEN.fetch_add(1, Ordering::Relaxed);
        }
        true
    }
    SEEN.store(0, Ordering::Relaxed);
    ADDRESS.store(0, Ordering::Relaxed);
    let old = traps::set_hook(1, Some(hook));
    probe::single_step_over_nops();
    traps::set_hook(1, old);
    // The first step ends behind the first NOP. Then two NOPs and the PUSHF, and at the end the POPF that clears the flag.
    check_eq!(SEEN.load(Ordering::Relaxed), 4, "steps of one byte");
    Ok(())
}

fn frame_is_whole() -> TestResult {
    check_eq!(size_of::<Frame>(), 176, "a frame's size");
    let (before, after) = probe::registers_across_a_fault();
    check_eq!(before, after, "registers across an exception");
    Ok(())
}

fn table() -> TestResult {
    check!(!extable::entries().is_empty(), "the table is empty");
    for entry in extable::entries() {
        check_eq!(extable::search(entry.fault), Some(entry.fixup), "an entry");
    }
    check_eq!(extable::search(table as *const () as u64), None, "an address that is not in it");
    Ok(())
}

fn user_accessors() -> TestResult {
    let mut bytes = [0; 16];
    let hole = USER_BASE + (1 << 38);
    check_eq!(copy_from_user(&mut bytes, hole), Err(16), "reading what is not there");
    check_eq!(copy_to_user(hole, &bytes), Err(16), "writing what is not there");
    check_eq!(copy_from_user(&mut bytes, 0x10_0000), Err(16), "reading the kernel through a user accessor");
    check_eq!(copy_to_user(u64::MAX - 4, &bytes), Err(16), "wrapping round");
    check!(try_read(hole).is_err(), "a hole could be read");
    check_eq!(try_read(0x10_0000).is_ok(), true, "reading the kernel's image");
    Ok(())
}

/// A copy that runs into a hole half way says how many bytes it has not copied.
fn partial_copy() -> TestResult {
    let Some(program) = probe::Program::new(1, &[0x0f, 0x0b]) else {
        return Err(kernel::testing::Failure::new(format_args!("no memory")));
    };
    let end = program.stack() + 16;
    check_eq!(copy_to_user(end - 10, &[7; 16]), Err(6), "bytes left");
    let mut bytes = [0; 10];
    check_eq!(copy_from_user(&mut bytes, end - 10), Ok(()), "reading them back");
    check_eq!(bytes, [7; 10], "what was written before the hole");
    Ok(())
}
