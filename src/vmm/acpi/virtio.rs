//! Virtio devices with windows of their own. ACPI has no ID for them; `LNRO0005` is the one that Linux looks for.

use acpi_tables::aml::{Device, Interrupt, Memory32Fixed, Name, ResourceTemplate};
use acpi_tables::{Aml, AmlSink};
use devices::virtio::MMIO_WINDOW;
use x86::platform;

use crate::virtio::mmio_gsi;

/// The devices of the first `windows` windows.
pub fn devices(windows: usize, sink: &mut dyn AmlSink) {
    for window in 0..windows as u64 {
        let hid = Name::new("_HID".into(), &"LNRO0005");
        let uid = Name::new("_UID".into(), &window);
        let base = platform::VIRTIO_MMIO + window * platform::VIRTIO_MMIO_STEP;
        let memory = Memory32Fixed::new(true, base as u32, MMIO_WINDOW as u32);
        // Level-triggered, active low and shared, as PCI interrupts are: they may have the same wire.
        let interrupt = Interrupt::new(true, false, true, true, mmio_gsi(window).into());
        let settings = Name::new("_CRS".into(), &ResourceTemplate::new(vec![&memory, &interrupt]));
        let name: &str = &format!("VM{window:02X}");
        Device::new(name.into(), vec![&hid, &uid, &settings]).to_aml_bytes(sink);
    }
}
