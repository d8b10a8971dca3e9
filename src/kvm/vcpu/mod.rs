//! One virtual processor: running it, its exits, interrupt injection.
//!
//! # When an interrupt may be injected
//!
//! KVM's `ready` bit is about the instruction boundary of the exit. Completing an exit may raise an exception (the next
//! element of a string instruction, an MSR answered with an error, a single-step trap), and an exception beats a queued
//! interrupt, which KVM then forgets. So [`Vcpu::inject`] refuses unless the last exit leaves nothing behind that could
//! fault; [`Vcpu::complete_pending`] gets there without running the guest.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;

use kvm_bindings::{
    KVM_EXIT_INTR, KVM_EXIT_MEMORY_FAULT, KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP, KVMIO, kvm_guest_debug,
    kvm_interrupt,
};
use kvm_ioctls::VcpuFd;
use sys::calls::{self, Call};
use sys::kick::{self, KICKED};
use vmm_sys_util::ioctl::{ioctl, ioctl_with_ref};
use vmm_sys_util::{ioctl_io_nr, ioctl_iow_nr};

use crate::exit::{Pending, decode};
use crate::run_page::RunPage;
use crate::{Error, Exit, Vm};

mod lapic;
mod reset;
mod state;
mod tsc;

#[cfg(test)]
mod tests;

pub use lapic::{LapicPage, MpState};
pub use reset::Reset;

ioctl_io_nr!(KVM_RUN, KVMIO, 0x80);
ioctl_iow_nr!(KVM_INTERRUPT, KVMIO, 0x86, kvm_interrupt);

/// Trap flag: a #DB after each instruction.
const RFLAGS_TF: u64 = 1 << 8;
const RFLAGS_IF: u64 = 1 << 9;

/// What `immediate_exit` holds while it is set by us and not by a kick.
const OWN_IMMEDIATE_EXIT: u8 = 2;
const _: () = assert!(OWN_IMMEDIATE_EXIT != KICKED && OWN_IMMEDIATE_EXIT != 0);

/// A thread's registration for kicks of one vCPU; kicks do nothing to the vCPU once it is dropped.
pub type KickGuard = kick::Registration;

/// A virtual processor. One thread owns it and runs it; other threads reach it by kicking that thread.
#[derive(Debug)]
pub struct Vcpu {
    fd: VcpuFd,
    page: RunPage,
    index: u32,
    /// What the last exit still needs.
    pending: Pending,
    /// KVM's `ready` as of the last run, cleared by whatever makes it stale.
    ready: bool,
    /// The page carries the general registers.
    sync_regs: bool,
    /// ... and they are those of the last exit.
    registers_synced: bool,
    /// CPUID leaf 1 EAX, which is in EDX after a reset.
    signature: u32,
    // Last: guest memory outlives the vCPU's file descriptor.
    _vm: Vm,
}

impl Vcpu {
    pub(crate) fn new(vm: Vm, fd: VcpuFd, index: u32, run_size: usize, sync_regs: bool) -> Result<Self, Error> {
        let mut page = RunPage::map(&fd, run_size)?;
        if sync_regs {
            page.sync_general_registers();
        }
        Ok(Self {
            fd,
            page,
            index,
            pending: Pending::Nothing,
            ready: false,
            sync_regs,
            registers_synced: false,
            signature: 0,
            _vm: vm,
        })
    }

    /// The descriptor, for a call that is neither KVM_RUN nor KVM_INTERRUPT and is counted so.
    fn fd(&self) -> &VcpuFd {
        calls::made(Call::VcpuIoctl);
        &self.fd
    }

    /// The number it was created with.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Completes the last exit with its answer, then runs the guest until the next exit.
    ///
    /// Fails only if this vCPU can never run again.
    pub fn run(&mut self) -> Result<Exit<'_>, Error> {
        match self.enter()? {
            Some(reason) => decode(&mut self.page, reason),
            None => Ok(Exit::Interrupted),
        }
    }

    /// As [`Self::run`], and gives the guest's CR8 at the exit with it: it has to be known before the exit is handled,
    /// which may change the task priority in turn.
    pub fn run_and_read_cr8(&mut self) -> Result<(u8, Exit<'_>), Error> {
        let reason = self.enter()?;
        let cr8 = self.cr8();
        match reason {
            Some(reason) => Ok((cr8, decode(&mut self.page, reason)?)),
            None => Ok((cr8, Exit::Interrupted)),
        }
    }

    /// Completes the last exit without running the guest, so that an interrupt can be injected or state be set safely.
    /// Returns the exit that completing it led to, if any (say, the other half of an access that crosses a boundary):
    /// it has to be handled like any other.
    ///
    /// Does nothing if there is nothing to complete. A kick that comes meanwhile is kept.
    pub fn complete_pending(&mut self) -> Result<Option<Exit<'_>>, Error> {
        if self.pending == Pending::Nothing { Ok(None) } else { self.refresh() }
    }

    /// As [`Self::complete_pending`], but always asks KVM: afterwards [`Self::ready_for_interrupt`], [`Self::if_flag`],
    /// [`Self::cr8`], [`Self::apic_base`] and [`Self::rflags`] are up to date.
    pub fn refresh(&mut self) -> Result<Option<Exit<'_>>, Error> {
        match self.enter_without_guest()? {
            Some(reason) => decode(&mut self.page, reason).map(Some),
            None => Ok(None),
        }
    }

    fn enter_without_guest(&mut self) -> Result<Option<u32>, Error> {
        let exchange = |vcpu: &Self, from, to| {
            vcpu.page.immediate_exit().compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        };
        let ours = exchange(self, 0, OWN_IMMEDIATE_EXIT);
        let outcome = self.enter();
        if ours {
            // Fails if a kick has put its own value there, which must stay for the owner to see.
            exchange(self, OWN_IMMEDIATE_EXIT, 0);
        }
        outcome
    }

    /// KVM_RUN: the exit reason, or `None` if a signal or `immediate_exit` ended it.
    fn enter(&mut self) -> Result<Option<u32>, Error> {
        self.ready = false;
        calls::made(Call::Run);
        // SAFETY: a vCPU's descriptor; KVM writes to the run page, to which `&mut self` is the only access, and to guest
        // memory, which the machine keeps alive.
        let ret = unsafe { ioctl(&self.fd, KVM_RUN()) };
        let reason = if ret == 0 {
            self.page.exit_reason()
        } else {
            let source = io::Error::last_os_error();
            match source.raw_os_error() {
                Some(libc::EINTR | libc::EAGAIN) => {
                    calls::count_signals();
                    KVM_EXIT_INTR
                }
                Some(libc::EFAULT) if self.page.exit_reason() == KVM_EXIT_MEMORY_FAULT => KVM_EXIT_MEMORY_FAULT,
                _ => return Err(Error::Run { vcpu: self.index, source }),
            }
        };
        self.pending = Pending::after(reason);
        self.ready = self.page.ready();
        self.registers_synced = self.sync_regs;
        Ok((reason != KVM_EXIT_INTR).then_some(reason))
    }

    /// Whether the guest can take an interrupt at the last exit's instruction boundary, KVM says. False after an
    /// injection, and after registers or events were set, until the next run or [`Self::refresh`].
    pub fn ready_for_interrupt(&self) -> bool {
        self.ready
    }

    /// Whether nothing that completing the last exit may do can make KVM lose an interrupt queued now. If not, call
    /// [`Self::complete_pending`], or ask for the interrupt window.
    pub fn injection_safe(&self) -> bool {
        match self.pending {
            Pending::Nothing => true,
            Pending::Access => false,
            // An error answer gives #GP, the trap flag #DB. If RFLAGS cannot be read, the slow way is right.
            Pending::Msr => self.page.msr_error() == 0 && self.rflags().is_ok_and(|f| f & RFLAGS_TF == 0),
        }
    }

    /// [`Self::ready_for_interrupt`] and [`Self::injection_safe`]: [`Self::inject`] will work.
    pub fn can_inject(&self) -> bool {
        self.ready && self.injection_safe()
    }

    /// Queues the interrupt `vector` for the next entry (KVM_INTERRUPT). At most one per entry.
    ///
    /// The caller has looked at the task priority; KVM does not. Fails with [`Error::NotReady`] where the interrupt
    /// would be lost, break an interrupt shadow or overwrite another.
    pub fn inject(&mut self, vector: u8) -> Result<(), Error> {
        if !self.can_inject() {
            return Err(Error::NotReady { vcpu: self.index });
        }
        self.queue_interrupt(vector)
    }

    fn queue_interrupt(&mut self, vector: u8) -> Result<(), Error> {
        let interrupt = kvm_interrupt { irq: vector.into() };
        calls::made(Call::Inject);
        // SAFETY: KVM_INTERRUPT reads one kvm_interrupt.
        if unsafe { ioctl_with_ref(&self.fd, KVM_INTERRUPT(), &interrupt) } != 0 {
            return Err(Error::last("KVM_INTERRUPT"));
        }
        // KVM does not update its bit before the next run.
        self.ready = false;
        Ok(())
    }

    /// Queues an NMI (KVM_NMI). While one is being handled, one more waits; further ones merge.
    pub fn nmi(&mut self) -> Result<(), Error> {
        self.fd().nmi().map_err(Error::call("KVM_NMI"))
    }

    /// RFLAGS.IF as of the last run. Stale after registers were set.
    pub fn if_flag(&self) -> bool {
        self.page.if_flag()
    }

    /// RFLAGS now: from the run page where the host can, else by KVM_GET_REGS.
    pub fn rflags(&self) -> Result<u64, Error> {
        if self.registers_synced { Ok(self.page.synced_rflags()) } else { Ok(self.regs()?.rflags) }
    }

    /// CR8, the task priority's upper four bits (0-15), as of the last run or [`Self::set_cr8`].
    pub fn cr8(&self) -> u8 {
        (self.page.cr8() & 0xf) as u8
    }

    /// The CR8 that the guest has from the next entry on; only the lower four bits count. It has to be right before
    /// every run: KVM takes what is in the page.
    pub fn set_cr8(&mut self, value: u8) {
        self.page.set_cr8((value & 0xf).into());
    }

    /// KVM's copy of IA32_APIC_BASE as of the last run; [`Self::set_apic_base`] changes it.
    pub fn apic_base(&self) -> u64 {
        self.page.apic_base()
    }

    /// Whether to end the next runs as soon as the guest can take an interrupt. Some hosts see it late, so look for
    /// requests at every exit.
    pub fn set_request_interrupt_window(&mut self, wanted: bool) {
        self.page.set_request_interrupt_window(wanted);
    }

    /// Whether the next runs end before the guest runs. Clear it *before* the last look for requests, never after: a
    /// kick may have set it.
    pub fn set_immediate_exit(&mut self, wanted: bool) {
        self.page.immediate_exit().store(if wanted { KICKED } else { 0 }, Ordering::SeqCst);
    }

    /// Makes kicks of the calling thread end this vCPU's runs, until the guard is dropped. The guard stays on its
    /// thread, which is the one to call [`Self::run`].
    pub fn register_kick(&mut self) -> Result<KickGuard, Error> {
        kick::register(self.page.kick_target()).map_err(Error::system("cannot register a vCPU for kicks"))
    }

    /// Ends every run after one instruction with [`Exit::Debug`], or no longer does.
    pub fn set_debug(&mut self, singlestep: bool) -> Result<(), Error> {
        let control = if singlestep { KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP } else { 0 };
        let debug = kvm_guest_debug { control, ..Default::default() };
        self.fd().set_guest_debug(&debug).map_err(Error::call("KVM_SET_GUEST_DEBUG"))
    }
}

impl AsRawFd for Vcpu {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.fd.as_raw_fd()
    }
}
