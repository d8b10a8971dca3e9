//! KVM's own interrupt controllers, for the modes that use them: all of them, or the local APICs alone ("split").
//!
//! Follows api.rst, sections "KVM_CREATE_IRQCHIP", "KVM_CAP_SPLIT_IRQCHIP", "KVM_SET_GSI_ROUTING", "KVM_SIGNAL_MSI",
//! "KVM_IRQ_LINE", "KVM_IRQFD" and "KVM_CAP_X2APIC_API". Controllers are created before the first vCPU.
//!
//! Not wrapped: KVM's PIT, its emulation of Hyper-V's and Xen's controllers.

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE,
    KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK, KVM_X2APIC_API_USE_32BIT_IDS, KVMIO, KvmIrqRouting, kvm_enable_cap,
    kvm_irq_routing_entry, kvm_irq_routing_entry__bindgen_ty_1, kvm_irq_routing_irqchip, kvm_irq_routing_msi, kvm_msi,
    kvm_pic_state,
};
use kvm_ioctls::Cap;
use sys::calls::{self, Call};
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::ioctl::ioctl_with_val;
use vmm_sys_util::ioctl_io_nr;

use super::Vm;
use super::chips::PicChip;
use crate::Error;

#[cfg(test)]
mod tests;

ioctl_io_nr!(KVM_SET_BOOT_CPU_ID, KVMIO, 0x78);

/// An interrupt message in KVM's form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Msi {
    /// The address that a device would write to. After [`Vm::use_32_bit_apic_ids`] bits 63:40 are bits 31:8 of the
    /// destination, and bits 39:32 are zero.
    pub address: u64,
    /// The data that it would write.
    pub data: u32,
}

impl Msi {
    fn halves(self) -> (u32, u32) {
        (self.address as u32, (self.address >> 32) as u32)
    }
}

/// What a GSI drives. A GSI may have a route to each controller, or one to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// An input (0-7) of the master 8259A.
    PicMaster(u8),
    /// An input (0-7) of the slave.
    PicSlave(u8),
    /// An I/O APIC pin (0-23).
    IoApic(u8),
    /// A message. With split controllers, one with the level bit makes its vector's EOIs exits
    /// ([`crate::Exit::IoApicEoi`]) if its GSI is below the number given to [`Vm::create_local_apics`].
    Msi(Msi),
}

impl Vm {
    /// Creates KVM's 8259A pair, I/O APIC and, with each vCPU, local APIC. All GSIs get KVM's default routes.
    pub fn create_irqchip(&self) -> Result<(), Error> {
        self.inner.fd.create_irq_chip().map_err(Error::call("KVM_CREATE_IRQCHIP"))
    }

    /// Masks all inputs of KVM's 8259A pair, as firmware does. KVM's chips serve their inputs, as vectors 0 to 7, before
    /// anybody has initialised them.
    pub fn mask_pics(&self) -> Result<(), Error> {
        for chip in [PicChip::Master, PicChip::Slave] {
            self.set_pic(chip, &kvm_pic_state { imr: 0xff, ..self.pic(chip)? })?;
        }
        Ok(())
    }

    /// Creates KVM's local APICs alone. EOIs of level-triggered vectors that are routed as messages in GSIs below
    /// `eoi_routes` become exits.
    pub fn create_local_apics(&self, eoi_routes: u32) -> Result<(), Error> {
        self.enable(Cap::SplitIrqchip, eoi_routes.into(), "KVM_ENABLE_CAP(KVM_CAP_SPLIT_IRQCHIP)")
    }

    /// Gives messages and KVM's local APIC state 32-bit APIC IDs. With `exact_255`, an 8-bit destination 255 means the
    /// local APIC with that ID to those in x2APIC mode; without, it means everyone.
    pub fn use_32_bit_apic_ids(&self, exact_255: bool) -> Result<(), Error> {
        let quirk = if exact_255 { KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK } else { 0 };
        let flags = KVM_X2APIC_API_USE_32BIT_IDS | quirk;
        self.enable(Cap::X2ApicApi, flags.into(), "KVM_ENABLE_CAP(KVM_CAP_X2APIC_API)")
    }

    /// Which vCPU is the bootstrap processor, by the number it will be created with; 0 unless this is called.
    pub fn set_boot_cpu(&self, id: u32) -> Result<(), Error> {
        // SAFETY: KVM_SET_BOOT_CPU_ID takes a number, no pointer.
        match unsafe { ioctl_with_val(&self.inner.fd, KVM_SET_BOOT_CPU_ID(), id.into()) } {
            0 => Ok(()),
            _ => Err(Error::last("KVM_SET_BOOT_CPU_ID")),
        }
    }

    /// Replaces all routes. Waits until no interrupt is on its way by the old ones: tens of microseconds to some
    /// milliseconds.
    pub fn set_routes(&self, routes: impl IntoIterator<Item = (u32, Route)>) -> Result<(), Error> {
        let entries: Vec<_> = routes.into_iter().map(|(gsi, route)| entry(gsi, route)).collect();
        let table = KvmIrqRouting::from_entries(&entries).map_err(|_| Error::Unexpected("too many routes for KVM"))?;
        calls::made(Call::VmIoctl);
        self.inner.fd.set_gsi_routing(&table).map_err(Error::call("KVM_SET_GSI_ROUTING"))
    }

    /// The level of `gsi` is now `level`, for KVM's own 8259A pair and I/O APIC.
    pub fn set_line(&self, gsi: u32, level: bool) -> Result<(), Error> {
        calls::made(Call::VmIoctl);
        self.inner.fd.set_irq_line(gsi, level).map_err(Error::call("KVM_IRQ_LINE"))
    }

    /// Sends a message to KVM's local APICs. False: nobody is there, or those who are don't take it.
    pub fn send_msi(&self, msi: Msi) -> Result<bool, Error> {
        let (address_lo, address_hi) = msi.halves();
        calls::made(Call::VmIoctl);
        match self.inner.fd.signal_msi(kvm_msi { address_lo, address_hi, data: msi.data, ..Default::default() }) {
            Ok(takers) => Ok(takers > 0),
            // KVM's own "nobody", -1, looks like this error.
            Err(e) if e.errno() == libc::EPERM => Ok(false),
            Err(e) => Err(Error::call("KVM_SIGNAL_MSI")(e)),
        }
    }

    /// From now on, each write to `event` is an interrupt of `gsi`, as an edge or as the message of its route at that time. KVM
    /// reads `event`; nobody else may.
    pub fn connect_irq(&self, event: &EventFd, gsi: u32) -> Result<(), Error> {
        calls::made(Call::VmIoctl);
        self.inner.fd.register_irqfd(event, gsi).map_err(Error::call("KVM_IRQFD"))
    }

    /// Undoes [`Vm::connect_irq`]; what was written before is delivered first.
    pub fn disconnect_irq(&self, event: &EventFd, gsi: u32) -> Result<(), Error> {
        calls::made(Call::VmIoctl);
        self.inner.fd.unregister_irqfd(event, gsi).map_err(Error::call("KVM_IRQFD"))
    }

    fn enable(&self, cap: Cap, argument: u64, call: &'static str) -> Result<(), Error> {
        let cap = kvm_enable_cap { cap: cap as u32, args: [argument, 0, 0, 0], ..Default::default() };
        self.inner.fd.enable_cap(&cap).map_err(Error::call(call))
    }
}

fn entry(gsi: u32, route: Route) -> kvm_irq_routing_entry {
    let chip = |irqchip, pin: u8| {
        let irqchip = kvm_irq_routing_irqchip { irqchip, pin: pin.into() };
        (KVM_IRQ_ROUTING_IRQCHIP, kvm_irq_routing_entry__bindgen_ty_1 { irqchip })
    };
    let (type_, u) = match route {
        Route::PicMaster(input) => chip(KVM_IRQCHIP_PIC_MASTER, input),
        Route::PicSlave(input) => chip(KVM_IRQCHIP_PIC_SLAVE, input),
        Route::IoApic(pin) => chip(KVM_IRQCHIP_IOAPIC, pin),
        Route::Msi(msi) => {
            let (address_lo, address_hi) = msi.halves();
            let msi = kvm_irq_routing_msi { address_lo, address_hi, data: msi.data, ..Default::default() };
            (KVM_IRQ_ROUTING_MSI, kvm_irq_routing_entry__bindgen_ty_1 { msi })
        }
    };
    kvm_irq_routing_entry { gsi, type_, u, ..Default::default() }
}
