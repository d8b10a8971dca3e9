//! What ACPI says of the PCI bus: the host bridge with what it passes on and where interrupt pins go, ECAM, and the resource
//! that keeps others off ECAM (ACPI specification 6.5, section "_PRT (PCI Routing Table)"; PCI Firmware Specification 3.3,
//! sections "MCFG Table Description" and "MMCONFIG address range reservation").

use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Memory32Fixed, Name, Package, PackageBuilder,
    ResourceTemplate, ZERO,
};
use acpi_tables::mcfg::MCFG;
use acpi_tables::{Aml, AmlSink};
use x86::platform;

use super::{OEM_ID, OEM_REVISION, OEM_TABLE_ID};

/// Devices of a bus.
const DEVICES: u8 = 32;
const LAST_BUS: u8 = 0;
const CONFIG_PORTS: u8 = 8;
/// In a routing table: any function of the device.
const ANY_FUNCTION: u32 = 0xffff;

/// Where configuration space is in memory.
pub fn mcfg() -> MCFG {
    let mut table = MCFG::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    table.add_ecam(platform::PCI_ECAM, 0, 0, LAST_BUS);
    table
}

/// The host bridge, and the reservation of ECAM.
pub fn devices(sink: &mut dyn AmlSink) {
    let hid = Name::new("_HID".into(), &EISAName::new("PNP0A08"));
    let cid = Name::new("_CID".into(), &EISAName::new("PNP0A03"));
    let (segment, bus) = (Name::new("_SEG".into(), &ZERO), Name::new("_BBN".into(), &ZERO));
    let uid = Name::new("_UID".into(), &ZERO);
    let ports = IO::new(platform::PCI_CONFIG_ADDRESS, platform::PCI_CONFIG_ADDRESS, 1, CONFIG_PORTS);
    let buses = AddressSpace::<u16>::new_bus_number(0, LAST_BUS.into());
    let (first, last) = (platform::PCI_WINDOW as u32, (platform::PCI_WINDOW + platform::PCI_WINDOW_SIZE - 1) as u32);
    let window = AddressSpace::<u32>::new_memory(AddressSpaceCacheable::NotCacheable, true, first, last, None);
    let settings = Name::new("_CRS".into(), &ResourceTemplate::new(vec![&buses, &ports, &window]));
    let mut routes = PackageBuilder::new();
    for device in 1..DEVICES {
        let place = u32::from(device) << 16 | ANY_FUNCTION;
        let gsi = platform::pci_gsi(device, 0);
        routes.add_element(&Package::new(vec![&place, &ZERO, &ZERO, &gsi]));
    }
    let routes = Name::new("_PRT".into(), &routes);
    Device::new("PCI0".into(), vec![&hid, &cid, &uid, &segment, &bus, &settings, &routes]).to_aml_bytes(sink);

    let hid = Name::new("_HID".into(), &EISAName::new("PNP0C02"));
    let ecam = Memory32Fixed::new(true, platform::PCI_ECAM as u32, platform::PCI_ECAM_SIZE as u32);
    let settings = Name::new("_CRS".into(), &ResourceTemplate::new(vec![&ecam]));
    Device::new("ECAM".into(), vec![&hid, &uid, &settings]).to_aml_bytes(sink);
}
