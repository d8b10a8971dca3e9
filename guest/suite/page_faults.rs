//! C5: page faults decoded, for each kind of access.

use kernel::arch::fault::Reason;
use kernel::arch::paging::{self, Flags, KERNEL_BASE, PAGE};
use kernel::arch::uaccess::{Caught, try_read};
use kernel::arch::user;
use kernel::probe::{self, Program};
use kernel::testing::{Failure, TestResult};
use kernel::{check, check_eq, test};

test!("page_faults.read_of_a_hole", [5], read_hole);
test!("page_faults.write_of_a_hole", [5], write_hole);
test!("page_faults.write_of_a_read_only_page", [5], write_read_only);
test!("page_faults.fetch_of_a_hole", [5], fetch_hole);
test!("page_faults.fetch_of_data", [5], fetch_data);
test!("page_faults.from_ring_three", [5], from_ring_three);
test!("page_faults.mapping_makes_the_same_access_work", [5], repaired);

/// An address that nothing else uses.
const PLACE: u64 = KERNEL_BASE + 0x1234_5000;

fn expect(found: Result<(), Caught>, address: u64, reason: Reason) -> TestResult {
    let Err(caught) = found else { return Err(Failure::new(format_args!("no fault at {address:#x}"))) };
    check_eq!(caught.vector, 14, "the vector");
    check_eq!(caught.address, address, "CR2");
    check_eq!(caught.reason(), reason, "the reason");
    Ok(())
}

fn read_hole() -> TestResult {
    expect(try_read(PLACE + 8).map(|_| ()), PLACE + 8, Reason::empty())
}

fn write_hole() -> TestResult {
    expect(probe::write_spare(PLACE + 16, 1), PLACE + 16, Reason::WRITE)
}

fn write_read_only() -> TestResult {
    paging::map_new(PLACE, Flags::NO_EXECUTE);
    let written = probe::write_spare(PLACE + 24, 1);
    paging::unmap(PLACE);
    expect(written, PLACE + 24, Reason::PRESENT | Reason::WRITE)
}

fn fetch_hole() -> TestResult {
    expect(probe::call_spare(PLACE), PLACE, Reason::FETCH)
}

fn fetch_data() -> TestResult {
    paging::map_new(PLACE, Flags::NO_EXECUTE);
    let called = probe::call_spare(PLACE);
    paging::unmap(PLACE);
    expect(called, PLACE, Reason::PRESENT | Reason::FETCH)
}

/// The same from ring 3, and what only ring 3 can do wrong: touch the kernel's memory.
fn from_ring_three() -> TestResult {
    // mov rax, [rdi]; mov [rdi], rax; ud2
    let program = Program::new(2, &[0x48, 0x8b, 0x07, 0x48, 0x89, 0x07, 0x0f, 0x0b]);
    let Some(program) = program else { return Err(Failure::new(format_args!("no memory"))) };
    let user = Reason::USER;
    let cases = [
        (program.hole(), program.entry(), user),
        (0x10_0000, program.entry(), user | Reason::PRESENT),
        (program.hole(), program.entry() + 3, user | Reason::WRITE),
        (program.entry(), program.entry() + 3, user | Reason::WRITE | Reason::PRESENT),
    ];
    for (address, rip, reason) in cases {
        let mut context = program.context();
        context.frame.rip = rip;
        context.frame.rdi = address;
        user::run(&mut context);
        check_eq!(context.frame.vector, 14, "the vector of an access to {address:#x}");
        check_eq!(context.frame.rip, rip, "the faulting instruction");
        check_eq!(context.fault.map(|f| (f.address, f.reason)), Some((address, reason)), "the fault");
    }
    for (address, reason) in [(program.hole(), user), (program.stack(), user | Reason::PRESENT)] {
        let mut context = program.context();
        context.frame.rip = address;
        user::run(&mut context);
        let fault = context.fault.map(|f| (f.address, f.reason));
        check_eq!(fault, Some((address, reason | Reason::FETCH)), "a fetch");
    }
    Ok(())
}

fn repaired() -> TestResult {
    let place = PLACE + PAGE;
    check!(try_read(place).is_err(), "something is mapped there");
    paging::map_new(place, Flags::WRITABLE | Flags::NO_EXECUTE);
    check_eq!(try_read(place).ok(), Some(0), "a fresh page");
    check!(probe::write_spare(place, 42).is_ok(), "it can't be written");
    check_eq!(try_read(place).ok(), Some(42), "what was written");
    paging::unmap(place);
    check!(try_read(place).is_err(), "it is still mapped");
    Ok(())
}
