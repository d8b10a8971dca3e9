//! The guest that KVM runs: a page of stubs in long mode, each of which does one thing and says at a port that it is
//! done, and a gate for every vector that says which one came. It never returns from an interrupt: whoever runs it puts
//! the processor at the next stub.

use std::sync::OnceLock;

use iced_x86::BlockEncoderOptions;
use iced_x86::code_asm::*;
use kvm::bindings::{kvm_dtable, kvm_segment, kvm_sregs};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Guest memory in bytes, from address 0.
const MEMORY: usize = 0x4_0000;
const PAGE_TABLES: u64 = 0x1000;
const GDT: u64 = 0x7000;
const IDT: u64 = 0x8000;
const CODE: u64 = 0x9000;
const STACKS: u64 = 0x2_0000;
const CODE_SELECTOR: u16 = 8;
const DATA_SELECTOR: u16 = 16;

/// Ports at which the guest says what has happened, with 32 bits each.
pub const DONE: u16 = 0xd0;
/// The upper half of a result; [`DONE`] comes after it.
pub const UPPER_HALF: u16 = 0xd4;
/// A vector, by its gate.
pub const VECTOR: u16 = 0xd8;

/// What a stub does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stub {
    /// Nothing.
    Nothing,
    /// An exit that KVM handles alone.
    ExitToKvm,
    /// WRMSR of EDX:EAX to ECX.
    WriteMsr,
    /// RDMSR of ECX.
    ReadMsr,
    /// EAX to the memory at RBX.
    Store,
    /// EAX from the memory at RBX.
    Load,
    /// AL to port DX.
    Out,
    /// AL from port DX.
    In,
    /// RAX to CR8.
    WriteCr8,
    /// RAX from CR8.
    ReadCr8,
}

const STUBS: [Stub; 10] = [
    Stub::Nothing,
    Stub::ExitToKvm,
    Stub::WriteMsr,
    Stub::ReadMsr,
    Stub::Store,
    Stub::Load,
    Stub::Out,
    Stub::In,
    Stub::WriteCr8,
    Stub::ReadCr8,
];

/// A guest in its memory.
pub struct Guest {
    pub memory: GuestMemoryMmap,
}

impl Guest {
    /// Writes it.
    pub fn new() -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]).expect("memory");
        let program = program();
        let write = |bytes: &[u8], at| memory.write_slice(bytes, GuestAddress(at)).expect("in memory");
        write(&program.code, CODE);
        for (vector, handler) in program.gates.iter().enumerate() {
            write(&gate(*handler), IDT + 16 * vector as u64);
        }
        let descriptors: [u64; 3] = [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];
        for (index, descriptor) in descriptors.into_iter().enumerate() {
            write(&descriptor.to_le_bytes(), GDT + 8 * index as u64);
        }
        write_page_tables(&memory);
        Self { memory }
    }

    /// Where a stub is.
    pub fn address(stub: Stub) -> u64 {
        program().stubs[stub as usize]
    }
}

/// The top of a vCPU's stack.
pub fn stack(cpu: usize) -> u64 {
    STACKS + 0x1000 * (cpu as u64 + 1)
}

/// Long mode with the guest's tables; what belongs to the local APIC stays.
pub fn enter_long_mode(sregs: &mut kvm_sregs) {
    let data = kvm_segment {
        limit: u32::MAX,
        selector: DATA_SELECTOR,
        type_: 3,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..Default::default()
    };
    sregs.cs = kvm_segment { selector: CODE_SELECTOR, type_: 0xb, db: 0, l: 1, ..data };
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.gdt = kvm_dtable { base: GDT, limit: 23, ..Default::default() };
    sregs.idt = kvm_dtable { base: IDT, limit: 0xfff, ..Default::default() };
    // PE, MP, ET, NE, PG; PAE; LME, LMA.
    (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer) = (0x8000_0033, PAGE_TABLES, 0x20, 0x500);
}

struct Program {
    code: Vec<u8>,
    stubs: Vec<u64>,
    gates: Vec<u64>,
}

fn program() -> &'static Program {
    static PROGRAM: OnceLock<Program> = OnceLock::new();
    PROGRAM.get_or_init(|| assemble().expect("the guest assembles"))
}

fn assemble() -> Result<Program, IcedError> {
    let mut a = CodeAssembler::new(64)?;
    let mut stubs = Vec::new();
    for stub in STUBS {
        stubs.push(here(&mut a)?);
        match stub {
            Stub::Nothing => {}
            Stub::ExitToKvm => a.cpuid()?,
            Stub::WriteMsr => a.wrmsr()?,
            Stub::ReadMsr => {
                a.rdmsr()?;
                a.xchg(eax, edx)?;
                a.out(u32::from(UPPER_HALF), eax)?;
                a.mov(eax, edx)?;
            }
            Stub::Store => a.mov(dword_ptr(rbx), eax)?,
            Stub::Load => a.mov(eax, dword_ptr(rbx))?,
            Stub::Out => a.out(dx, al)?,
            Stub::In => {
                a.xor(eax, eax)?;
                a.in_(al, dx)?;
            }
            Stub::WriteCr8 => a.mov(cr8, rax)?,
            Stub::ReadCr8 => a.mov(rax, cr8)?,
        }
        a.out(u32::from(DONE), eax)?;
    }
    let mut common = a.create_label();
    let mut gates = Vec::new();
    for vector in 0..256 {
        gates.push(here(&mut a)?);
        a.push(vector)?;
        a.jmp(common)?;
    }
    a.set_label(&mut common)?;
    a.pop(rax)?;
    a.out(u32::from(VECTOR), eax)?;
    let block = a.assemble_options(CODE, BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS)?;
    let addresses = |labels: Vec<CodeLabel>| labels.iter().map(|label| block.label_ip(label)).collect::<Result<_, _>>();
    let (stubs, gates) = (addresses(stubs)?, addresses(gates)?);
    Ok(Program { code: block.inner.code_buffer, stubs, gates })
}

fn here(a: &mut CodeAssembler) -> Result<CodeLabel, IcedError> {
    let mut label = a.create_label();
    a.set_label(&mut label)?;
    // The empty instruction takes it, so that another one may follow.
    a.zero_bytes()?;
    Ok(label)
}

/// An interrupt gate (Intel SDM vol. 3A, section "64-Bit Mode IDT").
fn gate(handler: u64) -> [u8; 16] {
    let low = handler & 0xffff | u64::from(CODE_SELECTOR) << 16 | 0x8e << 40 | (handler >> 16 & 0xffff) << 48;
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&low.to_le_bytes());
    bytes[8..].copy_from_slice(&(handler >> 32).to_le_bytes());
    bytes
}

/// Maps the first 4 GiB one to one with 2 MiB pages.
fn write_page_tables(memory: &GuestMemoryMmap) {
    let write = |at: u64, entry: u64| memory.write_obj(entry, GuestAddress(at)).expect("in memory");
    write(PAGE_TABLES, (PAGE_TABLES + 0x1000) | 3);
    for directory in 0..4 {
        write(PAGE_TABLES + 0x1000 + 8 * directory, (PAGE_TABLES + 0x2000 + 0x1000 * directory) | 3);
    }
    for page in 0..4 * 512 {
        write(PAGE_TABLES + 0x2000 + 8 * page, page << 21 | 0x83);
    }
}
