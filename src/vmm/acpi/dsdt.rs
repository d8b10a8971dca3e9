//! The differentiated system description table: the devices that cannot be found otherwise (ACPI specification 6.5,
//! chapters "Device Configuration" and "ACPI Machine Language (AML) Specification").
//!
//! It holds the soft-off state, one processor device for each vCPU, the PCI bus, virtio windows, and the ISA devices. Not
//! modelled: methods of any kind, so no `_PIC` or `_CST`.

use acpi_tables::aml::{Device, EISAName, IO, Memory32Fixed, Name, Package, ResourceTemplate, Scope, ZERO};
use acpi_tables::{Aml, AmlSink, sdt::Sdt};
use x86::platform;

use super::{AcpiConfig, OEM_ID, OEM_REVISION, OEM_TABLE_ID};

/// The most processors: their names have three hexadecimal digits.
pub const MAX_CPUS: usize = 0x1000;

/// Revision 2 and up: integers have 64 bits.
const REVISION: u8 = 2;
const SDT_HEADER_BYTES: u32 = 36;
/// `_STA`: present, enabled, shown, working.
const DEVICE_WORKS: u8 = 0xf;

/// IRQ descriptor without flags: an ISA interrupt, edge triggered, active high, not shared (section "IRQ Descriptor").
///
/// It names an ISA IRQ, so it goes through the source overrides; the extended descriptor that `acpi_tables` has names
/// a GSI.
struct IsaIrq(u8);

impl Aml for IsaIrq {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.byte(0x22);
        sink.word(1 << self.0);
    }
}

/// Builds the table; `config` has at most [`MAX_CPUS`] processors.
pub fn build(config: &AcpiConfig) -> Sdt {
    let mut body = Vec::new();
    let off = platform::SLP_TYP_S5;
    Name::new("_S5_".into(), &Package::new(vec![&off, &off, &ZERO, &ZERO])).to_aml_bytes(&mut body);

    let mut devices = Vec::new();
    for uid in 0..config.apic_ids.len() as u32 {
        let hid = Name::new("_HID".into(), &"ACPI0007");
        let name: &str = &format!("C{uid:03X}");
        Device::new(name.into(), vec![&hid, &Name::new("_UID".into(), &uid)]).to_aml_bytes(&mut devices);
    }
    isa_devices(&mut devices);
    super::pci::devices(&mut devices);
    super::virtio::devices(config.virtio_windows, &mut devices);
    body.extend(Scope::raw("\\_SB_".into(), devices));

    let mut table = Sdt::new(*b"DSDT", SDT_HEADER_BYTES, REVISION, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    table.append_slice(&body);
    table
}

fn isa_devices(sink: &mut dyn AmlSink) {
    // The interrupt controllers: the cascade is no interrupt anyone can ask for.
    isa_device(
        sink,
        "PIC_",
        "PNP0000",
        &[&ports(platform::PIC_MASTER, 2), &ports(platform::PIC_SLAVE, 2), &ports(platform::PIC_ELCR, 2)],
    );
    isa_device(sink, "TIMR", "PNP0100", &[&ports(platform::PIT, 4), &IsaIrq(platform::IRQ_PIT)]);
    isa_device(sink, "SPKR", "PNP0800", &[&ports(platform::PORT_B, 1)]);
    isa_device(sink, "RTC_", "PNP0B00", &[&ports(platform::RTC, 2), &IsaIrq(platform::IRQ_RTC)]);
    isa_device(sink, "COM1", "PNP0501", &[&ports(platform::COM1, 8), &IsaIrq(platform::IRQ_COM1)]);
    let registers = Memory32Fixed::new(true, platform::HPET_BASE as u32, devices::hpet::WINDOW as u32);
    isa_device(sink, "HPET", "PNP0103", &[&registers]);
    panic_device(sink);
}

/// pvpanic has an ACPI ID, not an EISA one, and Linux wants it present and enabled.
fn panic_device(sink: &mut dyn AmlSink) {
    let hid = Name::new("_HID".into(), &"QEMU0001");
    let status = Name::new("_STA".into(), &DEVICE_WORKS);
    let port = ports(platform::PVPANIC, 1);
    let settings = Name::new("_CRS".into(), &ResourceTemplate::new(vec![&port]));
    Device::new("PEVT".into(), vec![&hid, &status, &settings]).to_aml_bytes(sink);
}

fn isa_device(sink: &mut dyn AmlSink, name: &str, id: &str, resources: &[&dyn Aml]) {
    let hid = Name::new("_HID".into(), &EISAName::new(id));
    let uid = Name::new("_UID".into(), &ZERO);
    let settings = Name::new("_CRS".into(), &ResourceTemplate::new(resources.to_vec()));
    Device::new(name.into(), vec![&hid, &uid, &settings]).to_aml_bytes(sink);
}

fn ports(first: u16, count: u8) -> IO {
    IO::new(first, first, 1, count)
}
