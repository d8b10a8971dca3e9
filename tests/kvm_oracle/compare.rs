//! Every register that both show, after each operation; and what of KVM's the list of differences explains.

use kvm::LapicPage;
use x86::apic::reg;
use x86::ioapic::{IOREGSEL, REG_TABLE};
use x86::msr::{IA32_APIC_BASE, IA32_TSC_DEADLINE, X2APIC_FIRST, X2APIC_LAST};

use crate::apic::{Answer, ApicRig, CPUS, Op};
use crate::differences::Quirk;
use crate::host::FIRST_PIN;

/// The registers of the page that are compared: all but the arbitration priority, which KVM does not keep there, and the
/// current count, which never stands still.
const REGISTERS: [u32; 43] = [
    reg::ID,
    reg::VERSION,
    reg::TPR,
    reg::PPR,
    reg::LDR,
    reg::DFR,
    reg::SVR,
    0x100,
    0x110,
    0x120,
    0x130,
    0x140,
    0x150,
    0x160,
    0x170,
    0x180,
    0x190,
    0x1a0,
    0x1b0,
    0x1c0,
    0x1d0,
    0x1e0,
    0x1f0,
    0x200,
    0x210,
    0x220,
    0x230,
    0x240,
    0x250,
    0x260,
    0x270,
    reg::ESR,
    reg::LVT_CMCI,
    reg::ICR_LOW,
    reg::ICR_HIGH,
    reg::LVT_TIMER,
    reg::LVT_THERMAL,
    reg::LVT_PERF,
    reg::LVT_LINT0,
    reg::LVT_LINT1,
    reg::LVT_ERROR,
    reg::TIMER_INITIAL,
    reg::TIMER_DIVIDE,
];
/// Delivery status.
const STATUS: u32 = 1 << 12;
const REMOTE_IRR: u32 = 1 << 14;
/// Trigger mode.
const LEVEL: u32 = 1 << 15;
/// What there is of an ICR's lower half.
const ICR_BITS: u32 = 0x000c_dfff;
/// What there is of a redirection entry.
const ENTRY_BITS: u64 = 0xfffe_0000_0001_ffff;
const VECTORS_BELOW_16: u32 = 0xffff;

impl ApicRig {
    /// Whether both have come to the same.
    pub fn compare(&mut self, op: &Op) -> Result<(), String> {
        self.compare_by_kvm(op)
            .map_err(|e| format!("{op:?}: {e}"))?
            .map_or(Ok(()), |what| Err(format!("{op:?}: {what}")))
    }

    fn compare_by_kvm(&mut self, op: &Op) -> Result<Option<String>, kvm::Error> {
        if self.ours.readdressed && self.forgiven.contains(&Quirk::IoApicDoesNotTryAgain) {
            for pin in (0..24).filter(|pin| (self.lines & !self.parked) >> pin & 1 == 1) {
                self.kvms.vm.set_line(FIRST_PIN + pin, true)?;
            }
        }
        self.unpark()?;
        for cpu in 0..CPUS {
            // First: KVM takes INIT and start-up when it is asked.
            let waits = self.kvms.waits(cpu)?;
            if waits != self.ours.waits[cpu] {
                return Ok(Some(format!(
                    "CPU {cpu}: waits for a start-up: we say {}, KVM {waits}",
                    self.ours.waits[cpu]
                )));
            }
            if self.ours.restarted[cpu] {
                self.saw("INITs and start-ups");
                self.kvms.enter_long_mode(cpu)?;
                if cpu == 0 && self.forgives(Quirk::ApicLint0IsOpenAfterReset) {
                    self.close_lint0()?;
                }
            }
            let nmi = self.take_nmi(cpu)?;
            if nmi != self.ours.nmis[cpu] {
                return Ok(Some(format!("CPU {cpu}: an NMI: we say {}, KVM {nmi}", self.ours.nmis[cpu])));
            }
            if nmi {
                self.saw("NMIs");
            }
            if let Some(what) = self.compare_apic(cpu)? {
                return Ok(Some(what));
            }
        }
        self.compare_ioapic(op)
    }

    fn compare_apic(&mut self, cpu: usize) -> Result<Option<String>, kvm::Error> {
        let kvms = self.kvms.lapic(cpu)?;
        let ours = self.ours.apics[cpu].page(self.ours.now.ns);
        let mut different = Vec::new();
        for register in REGISTERS {
            let expected = ours[register as usize >> 4];
            let found = self.forgive_register(cpu, register, expected, &ours, &kvms);
            if expected != found {
                different.push(format!("CPU {cpu}, register {register:#x}: we have {expected:#x}, KVM {found:#x}"));
            }
        }
        let (base, deadline) = (self.ours.apics[cpu].base(), self.ours.apics[cpu].tsc_deadline());
        for (msr, expected) in [(IA32_APIC_BASE, base), (IA32_TSC_DEADLINE, deadline)] {
            let found = self.kvms.cpus[cpu].msr(msr)?;
            if found != Some(expected) {
                different.push(format!("CPU {cpu}, MSR {msr:#x}: we have {expected:#x}, KVM {found:x?}"));
            }
        }
        Ok((!different.is_empty()).then(|| different.join("; ")))
    }

    /// KVM's register without what is forgiven.
    fn forgive_register(
        &mut self,
        cpu: usize,
        register: u32,
        expected: u32,
        ours: &[u32; 64],
        page: &LapicPage,
    ) -> u32 {
        let mut found = page.register(register);
        // In x2APIC mode KVM shows the ID where xAPIC mode has it (api.rst, section "KVM_GET_LAPIC").
        if register == reg::ID && self.ours.is_x2apic(cpu) {
            found >>= 24;
        }
        let (quirk, bits) = match register {
            reg::VERSION => (Quirk::ApicHasNoEoiSuppression, 1 << 24),
            reg::ESR => (Quirk::ApicHasNoErrors, u32::MAX),
            reg::ICR_LOW => (Quirk::ApicIcrKeepsReservedBits, !ICR_BITS | STATUS),
            reg::LVT_LINT0 | reg::LVT_LINT1 => (Quirk::ApicLvtStatusIsWritable, STATUS | REMOTE_IRR),
            reg::LVT_CMCI | reg::LVT_TIMER..=reg::LVT_ERROR => (Quirk::ApicLvtStatusIsWritable, STATUS),
            reg::ICR_HIGH if self.ours.is_x2apic(cpu) && expected == 0 => (Quirk::ApicInitKeepsHalfOfIcr, u32::MAX),
            reg::IRR | reg::TMR => (Quirk::ApicTakesIllegalVectors, VECTORS_BELOW_16),
            reg::TPR => (Quirk::SvmTprHasNoSubclass, 0xf),
            reg::PPR if ours[reg::PPR as usize >> 4] == ours[reg::TPR as usize >> 4] => {
                (Quirk::SvmTprHasNoSubclass, 0xf)
            }
            _ => return found,
        };
        if (found ^ expected) & bits != 0 && self.forgives(quirk) {
            found = found & !bits | expected & bits;
        }
        found
    }

    fn compare_ioapic(&mut self, op: &Op) -> Result<Option<String>, kvm::Error> {
        let kvms = self.kvms.vm.ioapic()?;
        let mut select = [0];
        self.ours.ioapic.read(IOREGSEL, &mut select);
        let id = self.ours.ioapic.save().id;
        if (kvms.select, kvms.id) != (select[0], id) {
            return Ok(Some(format!(
                "I/O APIC, select and ID: we have {:x?}, KVM {:x?}",
                (select[0], id),
                (kvms.select, kvms.id)
            )));
        }
        for (pin, mut found) in kvms.entries.into_iter().enumerate() {
            let expected = self.ours.ioapic.entry(pin as u8).map_or(0, u64::from);
            if found & !ENTRY_BITS != 0 && self.forgives(Quirk::IoApicKeepsReservedBits) {
                found &= ENTRY_BITS;
            }
            let (status, remote_irr) = (u64::from(STATUS), u64::from(REMOTE_IRR));
            if expected & status != 0 && found & remote_irr != 0 && self.forgives(Quirk::IoApicTakesNobodyForSomebody) {
                self.park(pin as u8, expected as u32)?;
                found &= !remote_irr;
            }
            if (found ^ expected) & status != 0 && self.forgives(Quirk::IoApicHasNoDeliveryStatus) {
                found = found & !status | expected & status;
            }
            if expected != found {
                return Ok(Some(format!("pin {pin}: we have {expected:#x}, KVM {found:#x}")));
            }
            if expected & remote_irr != 0 && matches!(op, Op::Line(..)) {
                self.saw("level interrupts in service");
            }
        }
        Ok(None)
    }

    /// Takes back KVM's remote IRR of a pin that nobody has accepted, and lets it think that the pin is low.
    fn park(&mut self, pin: u8, entry: u32) -> Result<(), kvm::Error> {
        self.parked |= 1 << pin;
        self.kvms.vm.set_line(FIRST_PIN + u32::from(pin), false)?;
        let Some(cpu) = (0..CPUS).find(|&cpu| !self.ours.waits[cpu]) else { return Ok(()) };
        let (select, register) = (self.kvms.vm.ioapic()?.select, REG_TABLE + 2 * pin);
        self.write_ioapic(cpu, register, entry & !LEVEL)?;
        self.write_ioapic(cpu, register, entry)?;
        self.select(cpu, select)
    }

    /// Pins that are no longer refused are high again.
    fn unpark(&mut self) -> Result<(), kvm::Error> {
        let parked = self.parked;
        for pin in (0..24).filter(|pin| parked >> pin & 1 == 1) {
            let waits = self.ours.ioapic.entry(pin).is_some_and(|entry| entry.delivery_status());
            if !waits {
                self.parked &= !(1 << pin);
                self.kvms.vm.set_line(FIRST_PIN + u32::from(pin), true)?;
            }
        }
        Ok(())
    }

    /// Whether the list explains that KVM answers otherwise.
    pub fn forgives_answer(&mut self, op: &Op, ours: Answer, kvms: Answer) -> bool {
        let (Answer::Value(ours), Answer::Value(kvms)) = (ours, kvms) else { return false };
        let differs_only_in = |bits: u64| (ours ^ kvms) & !bits == 0;
        match *op {
            Op::ReadMsr(cpu, msr @ X2APIC_FIRST..=X2APIC_LAST) => self.forgives_answer(
                &Op::Read(cpu, (msr - X2APIC_FIRST) << 4),
                Answer::Value(ours),
                Answer::Value(kvms),
            ),
            // It never stands still.
            Op::Read(_, reg::TIMER_CURRENT) => true,
            Op::Read(_, reg::APR) => self.forgives(Quirk::ApicHasNoArbitrationPriority),
            Op::Read(cpu, register) => {
                let page = self.ours.apics[cpu].page(self.ours.now.ns);
                let Ok(kvms_page) = self.kvms.lapic(cpu) else { return false };
                // As in the page, which is compared anyway.
                let mut explained = |register: u32, value: u64| {
                    let expected = page[register as usize >> 4];
                    value as u32 == kvms_page.register(register)
                        && self.forgive_register(cpu, register, expected, &page, &kvms_page) == expected
                };
                let upper = ours >> 32 == kvms >> 32 || explained(reg::ICR_HIGH, kvms >> 32);
                upper && explained(register, kvms)
            }
            Op::IoRead(_, 1) => differs_only_in(0xff) && self.forgives(Quirk::IoApicIsOfVersion11),
            Op::IoRead(_, 3..REG_TABLE | 0x40..) => self.forgives(Quirk::IoApicReservedRegistersAreOnes),
            Op::IoRead(_, register) if register % 2 == 1 => {
                differs_only_in(!(ENTRY_BITS >> 32)) && self.forgives(Quirk::IoApicKeepsReservedBits)
            }
            Op::IoRead(..) => {
                let status = u64::from(STATUS);
                (differs_only_in(!ENTRY_BITS) && self.forgives(Quirk::IoApicKeepsReservedBits))
                    || (differs_only_in(!ENTRY_BITS | status) && self.forgives(Quirk::IoApicHasNoDeliveryStatus))
            }
            _ => false,
        }
    }

    /// Whether it is on the list; notes that it was needed.
    pub fn forgives(&mut self, quirk: Quirk) -> bool {
        let forgiven = self.forgiven.contains(&quirk);
        if forgiven {
            self.saw(quirk.name());
        }
        forgiven
    }
}
