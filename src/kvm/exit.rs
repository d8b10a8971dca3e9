//! Why a vCPU has left the guest, as an enum that borrows the answer's place from the run page.

use std::mem::offset_of;

use kvm_bindings::*;

use crate::Error;
use crate::run_page::{EXIT_DATA, RunPage};

/// A decoded exit, or what KVM's description of it violates.
type Outcome<'a> = Result<Exit<'a>, Error>;

/// Why KVM_RUN ended. Answers are written in place and take effect at the next run; what nobody answers reads as all
/// ones, and as #GP for MSRs.
#[derive(Debug)]
pub enum Exit<'a> {
    /// IN or INS. `data` is one or more elements of `size` bytes each, from the same port, filled with 0xff.
    PioIn {
        /// Port number.
        port: u16,
        /// Bytes of an element: 1, 2 or 4.
        size: u8,
        /// The elements, in order.
        data: &'a mut [u8],
    },
    /// OUT or OUTS. `data` is one or more elements of `size` bytes each, for the same port.
    PioOut {
        /// Port number.
        port: u16,
        /// Bytes of an element: 1, 2 or 4.
        size: u8,
        /// The elements, in order.
        data: &'a [u8],
    },
    /// A read where there is no memory; 1 to 8 bytes, filled with 0xff.
    MmioRead {
        /// Guest-physical address.
        addr: u64,
        /// The answer.
        data: &'a mut [u8],
    },
    /// A write where there is no memory; 1 to 8 bytes.
    MmioWrite {
        /// Guest-physical address.
        addr: u64,
        /// The bytes.
        data: &'a [u8],
    },
    /// RDMSR of a filtered register, or of one that KVM would answer with #GP.
    MsrRead {
        /// MSR number.
        index: u32,
        /// Why it is ours.
        reason: MsrReason,
        /// The answer: #GP unless a value is given.
        reply: MsrReadReply<'a>,
    },
    /// WRMSR to a filtered register, or one that KVM would answer with #GP.
    MsrWrite {
        /// MSR number.
        index: u32,
        /// What is written.
        value: u64,
        /// Why it is ours.
        reason: MsrReason,
        /// The answer: #GP unless accepted.
        reply: MsrWriteReply<'a>,
    },
    /// HLT. KVM does not remember it: the next run goes on behind the instruction.
    Halt,
    /// KVM's local APIC has ended an interrupt that [`crate::Route::Msi`] says is level-triggered.
    IoApicEoi {
        /// Its vector.
        vector: u8,
    },
    /// The guest can take an interrupt, and a window was asked for.
    InterruptWindow,
    /// The guest has lowered CR8 (not on every host).
    SetTpr,
    /// A signal, or `immediate_exit`. A pending exit has been completed.
    Interrupted,
    /// A debug event: single step or breakpoint.
    Debug {
        /// Exception number (1 or 3).
        exception: u32,
        /// Linear address of the next instruction.
        pc: u64,
        /// DR6 as the guest would see it.
        dr6: u64,
    },
    /// Triple fault.
    Shutdown,
    /// A system event by a paravirtual interface.
    SystemEvent {
        /// KVM_SYSTEM_EVENT_*.
        kind: u32,
    },
    /// The processor refused the guest state.
    FailEntry {
        /// The processor's reason code.
        reason: u64,
    },
    /// KVM cannot go on, mostly because its emulator lacks an instruction.
    InternalError {
        /// KVM_INTERNAL_ERROR_*; 1 is emulation.
        suberror: u32,
        /// Details, at most 16 words.
        data: Vec<u64>,
    },
    /// Guest memory could not be accessed.
    MemoryFault {
        /// Guest-physical address.
        addr: u64,
        /// Bytes.
        size: u64,
    },
    /// An exit this program did not ask for.
    Unknown(u32),
}

/// Why an MSR access became an exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MsrReason {
    /// KVM knows the MSR but finds the access invalid; x2APIC registers come this way.
    Invalid,
    /// KVM does not know the MSR.
    Unknown,
    /// The filter has it.
    Filtered,
}

/// The place for the answer to RDMSR.
#[derive(Debug)]
pub struct MsrReadReply<'a> {
    error: &'a mut u8,
    data: &'a mut u64,
}

impl<'a> MsrReadReply<'a> {
    /// An answer to be read from these two: the error is 1 for #GP, 0 for a value.
    pub fn new(error: &'a mut u8, data: &'a mut u64) -> Self {
        *error = 1;
        Self { error, data }
    }

    /// The guest reads `value`.
    pub fn value(self, value: u64) {
        *self.data = value;
        *self.error = 0;
    }

    /// The guest gets #GP.
    pub fn fault(self) {
        *self.error = 1;
    }
}

/// The place for the answer to WRMSR.
#[derive(Debug)]
pub struct MsrWriteReply<'a> {
    error: &'a mut u8,
}

impl<'a> MsrWriteReply<'a> {
    /// An answer to be read from here: 1 for #GP, 0 for a write that was done.
    pub fn new(error: &'a mut u8) -> Self {
        *error = 1;
        Self { error }
    }

    /// The write is done.
    pub fn accept(self) {
        *self.error = 0;
    }

    /// The guest gets #GP.
    pub fn fault(self) {
        *self.error = 1;
    }
}

/// What has to happen to an exit before the guest is at an instruction boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pending {
    /// Nothing.
    Nothing,
    /// The instruction goes on with the answer, and may fault or exit again.
    Access,
    /// The MSR answer is taken; a fault if it says so.
    Msr,
}

impl Pending {
    pub fn after(reason: u32) -> Self {
        match reason {
            KVM_EXIT_IO | KVM_EXIT_MMIO | KVM_EXIT_HYPERCALL => Self::Access,
            KVM_EXIT_X86_RDMSR | KVM_EXIT_X86_WRMSR => Self::Msr,
            _ => Self::Nothing,
        }
    }
}

/// Reads the exit that `reason` names out of the run page.
pub(crate) fn decode(page: &mut RunPage, reason: u32) -> Outcome<'_> {
    let data = page.exit_data();
    // SAFETY (all blocks below): the union's fields are plain integers, valid whatever is in them; the exit reason says
    // which of them KVM has filled in.
    Ok(match reason {
        KVM_EXIT_IO => {
            // SAFETY: see above.
            return pio(page, unsafe { data.io });
        }
        KVM_EXIT_MMIO => {
            // SAFETY: see above.
            return mmio(page, unsafe { data.mmio });
        }
        KVM_EXIT_X86_RDMSR | KVM_EXIT_X86_WRMSR => {
            // SAFETY: see above.
            msr(page, unsafe { data.msr }, reason == KVM_EXIT_X86_WRMSR)
        }
        KVM_EXIT_HLT => Exit::Halt,
        // SAFETY: see above.
        KVM_EXIT_IOAPIC_EOI => Exit::IoApicEoi { vector: unsafe { data.eoi }.vector },
        KVM_EXIT_IRQ_WINDOW_OPEN => Exit::InterruptWindow,
        KVM_EXIT_SET_TPR => Exit::SetTpr,
        KVM_EXIT_INTR => Exit::Interrupted,
        KVM_EXIT_DEBUG => {
            // SAFETY: see above.
            let arch = unsafe { data.debug }.arch;
            Exit::Debug { exception: arch.exception, pc: arch.pc, dr6: arch.dr6 }
        }
        KVM_EXIT_SHUTDOWN => Exit::Shutdown,
        // SAFETY: see above.
        KVM_EXIT_SYSTEM_EVENT => Exit::SystemEvent { kind: unsafe { data.system_event }.type_ },
        // SAFETY: see above.
        KVM_EXIT_FAIL_ENTRY => Exit::FailEntry { reason: unsafe { data.fail_entry }.hardware_entry_failure_reason },
        KVM_EXIT_INTERNAL_ERROR => {
            // SAFETY: see above.
            let error = unsafe { data.internal };
            let words = (error.ndata as usize).min(error.data.len());
            Exit::InternalError { suberror: error.suberror, data: error.data[..words].to_vec() }
        }
        KVM_EXIT_MEMORY_FAULT => {
            // SAFETY: see above.
            let fault = unsafe { data.memory_fault };
            Exit::MemoryFault { addr: fault.gpa, size: fault.size }
        }
        other => Exit::Unknown(other),
    })
}

type Io = kvm_run__bindgen_ty_1__bindgen_ty_4;
type Mmio = kvm_run__bindgen_ty_1__bindgen_ty_6;
type Msr = kvm_run__bindgen_ty_1__bindgen_ty_23;

fn pio(page: &mut RunPage, io: Io) -> Outcome<'_> {
    const OUTSIDE: Error = Error::Unexpected("port data outside the run page");
    let len = (io.count as usize).checked_mul(io.size.into()).ok_or(OUTSIDE)?;
    let offset = usize::try_from(io.data_offset).map_err(|_| OUTSIDE)?;
    let data = page.bytes_mut(offset, len).ok_or(OUTSIDE)?;
    Ok(if u32::from(io.direction) == KVM_EXIT_IO_OUT {
        Exit::PioOut { port: io.port, size: io.size, data }
    } else {
        data.fill(0xff);
        Exit::PioIn { port: io.port, size: io.size, data }
    })
}

fn mmio(page: &mut RunPage, mmio: Mmio) -> Outcome<'_> {
    const TOO_LONG: Error = Error::Unexpected("an MMIO access longer than 8 bytes");
    let len = mmio.len as usize;
    if len > mmio.data.len() {
        return Err(TOO_LONG);
    }
    let data = page.bytes_mut(EXIT_DATA + offset_of!(Mmio, data), len).ok_or(TOO_LONG)?;
    Ok(if mmio.is_write != 0 {
        Exit::MmioWrite { addr: mmio.phys_addr, data }
    } else {
        data.fill(0xff);
        Exit::MmioRead { addr: mmio.phys_addr, data }
    })
}

fn msr(page: &mut RunPage, msr: Msr, write: bool) -> Exit<'_> {
    let reason = match msr.reason {
        KVM_MSR_EXIT_REASON_FILTER => MsrReason::Filtered,
        KVM_MSR_EXIT_REASON_UNKNOWN => MsrReason::Unknown,
        _ => MsrReason::Invalid,
    };
    let (error, data) = page.msr_answer();
    // Until somebody answers, the register does not exist: #GP.
    if write {
        Exit::MsrWrite { index: msr.index, value: msr.data, reason, reply: MsrWriteReply::new(error) }
    } else {
        Exit::MsrRead { index: msr.index, reason, reply: MsrReadReply::new(error, data) }
    }
}
