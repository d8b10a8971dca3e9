//! The state of KVM's own 8259A pair and I/O APIC, for machines that have them ([`Vm::create_irqchip`]).
//!
//! Follows api.rst, sections "KVM_GET_IRQCHIP" and "KVM_SET_IRQCHIP".

use kvm_bindings::{
    KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, kvm_irqchip, kvm_irqchip__bindgen_ty_1,
    kvm_pic_state,
};

use super::Vm;
use crate::Error;

/// One of the two 8259As.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PicChip {
    /// The one that the processor sees.
    Master,
    /// The one on the master's input 2.
    Slave,
}

impl PicChip {
    fn id(self) -> u32 {
        match self {
            Self::Master => KVM_IRQCHIP_PIC_MASTER,
            Self::Slave => KVM_IRQCHIP_PIC_SLAVE,
        }
    }
}

/// KVM's I/O APIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IoApicState {
    /// The register that the window shows.
    pub select: u8,
    /// Its ID.
    pub id: u8,
    /// The redirection table.
    pub entries: [u64; 24],
}

impl Vm {
    /// What one 8259A of KVM's remembers.
    pub fn pic(&self, chip: PicChip) -> Result<kvm_pic_state, Error> {
        // SAFETY: KVM has filled in the member that belongs to this chip; it is made of plain integers.
        Ok(unsafe { self.irqchip(chip.id())?.pic })
    }

    /// Sets it. KVM works out its output anew.
    pub fn set_pic(&self, chip: PicChip, state: &kvm_pic_state) -> Result<(), Error> {
        let chip = kvm_bindings::kvm_irqchip {
            chip_id: chip.id(),
            chip: kvm_irqchip__bindgen_ty_1 { pic: *state },
            ..Default::default()
        };
        self.inner.fd.set_irqchip(&chip).map_err(Error::call("KVM_SET_IRQCHIP"))
    }

    /// What KVM's I/O APIC remembers.
    pub fn ioapic(&self) -> Result<IoApicState, Error> {
        // SAFETY: KVM has filled in the member that belongs to this chip; it is made of plain integers.
        let state = unsafe { self.irqchip(KVM_IRQCHIP_IOAPIC)?.ioapic };
        // SAFETY: an entry is 64 bits whichever way it is looked at.
        let entries = state.redirtbl.map(|entry| unsafe { entry.bits });
        Ok(IoApicState { select: state.ioregsel as u8, id: state.id as u8, entries })
    }

    fn irqchip(&self, chip_id: u32) -> Result<kvm_irqchip__bindgen_ty_1, Error> {
        let mut chip = kvm_irqchip { chip_id, ..Default::default() };
        self.inner.fd.get_irqchip(&mut chip).map_err(Error::call("KVM_GET_IRQCHIP"))?;
        Ok(chip.chip)
    }
}
