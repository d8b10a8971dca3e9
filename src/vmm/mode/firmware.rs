//! The machine's whole firmware: what is at the reset vector.
//!
//! Only an INIT of the bootstrap processor leads there. This program's local APICs answer it by a reset of the machine, which
//! is what firmware would make of it; where the local APICs are KVM's, KVM starts the processor at the reset vector, and the
//! sixteen bytes that it finds ask for that reset (Intel SDM vol. 3A, section "First Instruction Executed").

use kvm::Vm;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use x86::platform;

use crate::Error;

/// The last page below 4 GiB.
const PAGE: u64 = 0xffff_f000;
const PAGE_BYTES: usize = 0x1000;
/// The first instruction.
const RESET_VECTOR: u64 = 0xffff_fff0;
/// Full reset, in the reset control register.
const FULL_RESET: u8 = 0x06;

/// Puts it into the machine, read-only.
pub fn add(vm: &Vm) -> Result<(), Error> {
    let memory = |e: &dyn std::fmt::Display| Error::host("no memory for the reset vector", e);
    let rom: GuestMemoryMmap =
        GuestMemoryMmap::from_ranges(&[(GuestAddress(PAGE), PAGE_BYTES)]).map_err(|e| memory(&e))?;
    rom.write_slice(&code(), GuestAddress(RESET_VECTOR)).map_err(|e| memory(&e))?;
    Ok(vm.add_rom(&rom)?)
}

/// Real mode.
#[rustfmt::skip]
fn code() -> [u8; 9] {
    let [low, high] = platform::RESET_CONTROL.to_le_bytes();
    [
        0xba, low, high,    // mov dx, RESET_CONTROL
        0xb0, FULL_RESET,   // mov al, FULL_RESET
        0xee,               // out dx, al
        0xf4,               // hlt
        0xeb, 0xfd,         // jmp to the hlt
    ]
}
