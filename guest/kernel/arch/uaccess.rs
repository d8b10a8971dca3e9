//! Access to memory that may not be there: ring 3's, or any address that a test wants to try.
//!
//! Each accessor has its instruction in the exception table ([`super::extable`]); a fault there returns as an error. These are the only
//! instructions of the kernel that may fault.
//!
//! To read more: Linux, Documentation/arch/x86/exception-tables.rst.

use core::arch::{asm, naked_asm};

use x86::vector::PAGE_FAULT;

use super::fault::{PageFault, Reason};
use super::frame::Frame;
use super::paging::{USER_BASE, USER_END};
use super::traps;
use crate::extable;

/// An exception that an accessor survived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caught {
    /// Its vector.
    pub vector: u8,
    /// Its error code, 0 if it has none.
    pub error: u64,
    /// The faulting address of a page fault, else 0.
    pub address: u64,
}

impl Caught {
    fn new(vector: u64, error: u64) -> Self {
        let address = if vector == u64::from(PAGE_FAULT) { PageFault::last_address() } else { 0 };
        Self { vector: vector as u8, error, address }
    }

    /// The page fault's reason bits.
    pub fn reason(&self) -> Reason {
        Reason::from_bits_truncate(self.error)
    }
}

/// What an accessor's assembly leaves: RAX is [`FINE`] or the vector, RDX the error code.
const FINE: u64 = u64::MAX;

/// What RAX and RDX say after code that starts with RAX all ones and may fault.
pub(crate) fn caught(vector: u64, error: u64) -> Option<Caught> {
    result(vector, error).err()
}

fn result(vector: u64, error: u64) -> Result<(), Caught> {
    if vector == FINE { Ok(()) } else { Err(Caught::new(vector, error)) }
}

/// Reads eight bytes at any address.
pub fn try_read(address: u64) -> Result<u64, Caught> {
    let (vector, error, value): (u64, u64, u64);
    // SAFETY: a read that faults is caught; one that succeeds has no effect, as long as it is not of a device's registers, and
    // those are where the kernel put or left them.
    unsafe {
        asm!(
            "2: mov {value}, [{address}]",
            "3:",
            extable!("2b", "3b"),
            address = in(reg) address,
            value = out(reg) value,
            inout("rax") FINE => vector,
            out("rdx") error,
            options(nostack, readonly),
        );
    }
    result(vector, error).map(|()| value)
}

/// Writes eight bytes at any address outside what the kernel itself uses.
///
/// # Safety
///
/// No Rust object lies there.
pub unsafe fn try_write(address: u64, value: u64) -> Result<(), Caught> {
    let (vector, error): (u64, u64);
    // SAFETY: by the contract of this function; a fault is caught.
    unsafe {
        asm!(
            "2: mov [{address}], {value}",
            "3:",
            extable!("2b", "3b"),
            address = in(reg) address,
            value = in(reg) value,
            inout("rax") FINE => vector,
            out("rdx") error,
            options(nostack),
        );
    }
    result(vector, error)
}

/// Calls any address. If that can't be fetched, the fault is caught; else the function there runs.
///
/// # Safety
///
/// What is there, if anything, is a function without arguments that keeps to the calling convention.
pub unsafe fn try_call(address: u64) -> Result<(), Caught> {
    // A fetch faults at the address itself, which no table can know: the hook goes back to the caller.
    let old = traps::set_hook(PAGE_FAULT, Some(fetch_failed));
    // SAFETY: by the contract of this function; a fault of the fetch returns as if from the function.
    let Called { vector, error } = unsafe { call(address) };
    traps::set_hook(PAGE_FAULT, old);
    result(vector, error)
}

/// RAX and RDX.
#[repr(C)]
struct Called {
    vector: u64,
    error: u64,
}

// SAFETY: a balanced call; the callee keeps to the calling convention, by the contract of `try_call`.
#[unsafe(naked)]
unsafe extern "C" fn call(address: u64) -> Called {
    naked_asm!("sub rsp, 8", "call rdi", "mov rax, -1", "jmp {}", sym call_landing)
}

// SAFETY: the end of `call`, with the stack pointer as it is there.
#[unsafe(naked)]
unsafe extern "C" fn call_landing() {
    naked_asm!("add rsp, 8", "ret")
}

/// A page fault whose address is the instruction's own: back to [`call`], with the return address dropped.
fn fetch_failed(frame: &mut Frame) -> bool {
    let failed = frame.rip == PageFault::last_address();
    if failed {
        frame.rip = call_landing as *const () as u64;
        frame.rsp += 8;
        frame.rax = frame.vector;
        frame.rdx = frame.error;
    }
    failed
}

/// The range is ring 3's.
fn is_user(address: u64, length: usize) -> bool {
    address >= USER_BASE && address.checked_add(length as u64).is_some_and(|end| end <= USER_END)
}

/// Copies from ring 3's memory; on a fault, or for an address that is not ring 3's, the number of bytes that were not copied.
pub fn copy_from_user(to: &mut [u8], from: u64) -> Result<(), usize> {
    if !is_user(from, to.len()) {
        return Err(to.len());
    }
    // SAFETY: `to` is as long as said; a fault of the reads is caught.
    unsafe { copy(to.as_mut_ptr() as u64, from, to.len()) }
}

/// Copies to ring 3's memory; errors as [`copy_from_user`].
pub fn copy_to_user(to: u64, from: &[u8]) -> Result<(), usize> {
    if !is_user(to, from.len()) {
        return Err(from.len());
    }
    // SAFETY: ring 3's memory holds no Rust object; a fault of the writes is caught.
    unsafe { copy(to, from.as_ptr() as u64, from.len()) }
}

unsafe fn copy(to: u64, from: u64, length: usize) -> Result<(), usize> {
    let mut left = length;
    // SAFETY: by the callers; RAX and RDX may be set by the fixup.
    unsafe {
        asm!(
            "2: rep movsb",
            "3:",
            extable!("2b", "3b"),
            inout("rcx") left,
            inout("rdi") to => _,
            inout("rsi") from => _,
            out("rax") _,
            out("rdx") _,
            options(nostack),
        );
    }
    if left == 0 { Ok(()) } else { Err(left) }
}
