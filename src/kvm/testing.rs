//! For this crate's tests: tiny guests in real mode.

use iced_x86::code_asm::CodeAssembler;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::{Kvm, MsrRange, Vcpu, Vm};

/// Where guests are loaded and start.
pub const CODE: u64 = 0x1000;
/// Guest memory in bytes, from address 0.
pub const MEMORY: usize = 0x10000;

/// KVM, or `None` with a word about it where there is none.
pub fn kvm() -> Option<Kvm> {
    match Kvm::open() {
        Ok(kvm) => Some(kvm),
        Err(e) => {
            println!("SKIPPED: no /dev/kvm ({e})");
            None
        }
    }
}

/// A machine with one vCPU about to run a guest.
pub struct Guest {
    pub vm: Vm,
    pub vcpu: Vcpu,
    pub memory: GuestMemoryMmap,
}

/// Loads what `program` assembles at 0000:1000, stack at 0000:8000, with the host's CPUID. `None` without KVM.
pub fn guest(program: impl FnOnce(&mut CodeAssembler)) -> Option<Guest> {
    guest_in(|_| {}, program)
}

/// The same in a machine that `prepare` has seen before its vCPU is made.
pub fn guest_in(prepare: impl FnOnce(&Vm), program: impl FnOnce(&mut CodeAssembler)) -> Option<Guest> {
    let kvm = kvm()?;
    let vm = kvm.create_vm().unwrap();
    prepare(&vm);
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap();
    vm.add_memory(&memory).unwrap();
    let mut code = CodeAssembler::new(16).unwrap();
    program(&mut code);
    memory.write_slice(&code.assemble(CODE).unwrap(), GuestAddress(CODE)).unwrap();

    let mut vcpu = vm.create_vcpu(0).unwrap();
    vcpu.set_cpuid(&kvm.supported_cpuid().unwrap()).unwrap();
    vcpu.reset_state(crate::Reset::PowerOn { bsp: true }).unwrap();
    vcpu.start_up(0).unwrap();
    let mut regs = vcpu.regs().unwrap();
    (regs.rip, regs.rsp) = (CODE, 0x8000);
    vcpu.set_regs(&regs).unwrap();
    Some(Guest { vm, vcpu, memory })
}

impl Guest {
    /// Points the real-mode vector at `handler`.
    pub fn set_vector(&self, vector: u8, handler: u64) {
        self.memory.write_obj(handler as u32, GuestAddress(u64::from(vector) * 4)).unwrap();
    }

    /// Loads what `program` assembles at `at` (segment 0).
    pub fn load(&self, at: u64, program: impl FnOnce(&mut CodeAssembler)) {
        let mut code = CodeAssembler::new(16).unwrap();
        program(&mut code);
        self.memory.write_slice(&code.assemble(at).unwrap(), GuestAddress(at)).unwrap();
    }

    /// Reads a byte of guest memory.
    pub fn byte(&self, at: u64) -> u8 {
        self.memory.read_obj(GuestAddress(at)).unwrap()
    }

    pub fn filter(&self, base: u32) {
        self.vm.filter_msrs(&[MsrRange { base, count: 1, read: true, write: true }]).unwrap();
    }
}
