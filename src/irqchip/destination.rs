//! Who matches a destination: a table made anew whenever a local APIC's address changes, and read without a lock
//! (Intel SDM vol. 3A, section "Determining IPI Destination").
//!
//! One target is found without a look at the others: physical IDs and x2APIC clusters index arrays. In xAPIC flat mode
//! there are at most eight usable logical IDs, in cluster mode 60, so these are lists of those that have one.

use fault::Fault;

use crate::message::Destination;

/// A logical ID and its format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogicalId {
    /// The destination format is none of the two allowed: nothing matches.
    None,
    /// xAPIC flat model: any common bit matches.
    Flat(u8),
    /// xAPIC cluster model: the high nibble is the cluster, any common bit in the low one matches.
    Cluster(u8),
    /// x2APIC: the high half is the cluster, any common bit in the low one matches.
    X2Apic(u32),
}

/// What others must know of a local APIC to address it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Address {
    /// False for a globally disabled APIC, which no message reaches.
    pub present: bool,
    /// The physical ID.
    pub id: u32,
    /// The logical ID.
    pub logical: LogicalId,
    /// Software-enabled: accepts fixed and lowest-priority interrupts. NMI, INIT and start-up don't ask.
    pub enabled: bool,
}

impl Address {
    /// A globally disabled APIC.
    pub const DISABLED: Self = Self { present: false, id: 0, logical: LogicalId::None, enabled: false };
}

const NOBODY: u32 = u32::MAX;

/// The table: from destinations to indexes of local APICs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DestinationTable {
    addresses: Vec<Address>,
    physical: Vec<u32>,
    flat: Vec<(u8, u32)>,
    clusters: [Vec<(u8, u32)>; 16],
    x2apic: Vec<Vec<(u16, u32)>>,
    /// Somebody's ID does not fit 8 bits, or would be taken for a broadcast.
    wide: bool,
}

impl DestinationTable {
    /// Builds the table; an APIC's index is its place in `addresses`.
    pub fn new(addresses: Vec<Address>) -> Self {
        let mut table = Self::default();
        for (index, address) in addresses.iter().enumerate().filter(|(_, address)| address.present) {
            let index = index as u32;
            table.wide |= address.id >= 0xff;
            let place = slot(&mut table.physical, address.id as usize, NOBODY);
            // Two with one ID are a broken machine; that there be one answer is all that counts.
            *place = index.min(*place);
            match address.logical {
                LogicalId::None | LogicalId::Flat(0) => {}
                LogicalId::Flat(mask) => table.flat.push((mask, index)),
                LogicalId::Cluster(id) => table.clusters[usize::from(id >> 4)].push((id & 0xf, index)),
                LogicalId::X2Apic(id) => {
                    slot(&mut table.x2apic, (id >> 16) as usize, Vec::new()).push((id as u16, index));
                }
            }
        }
        table.addresses = addresses;
        table
    }

    /// The address of the APIC with this index.
    pub fn address(&self, index: usize) -> Option<&Address> {
        self.addresses.get(index)
    }

    /// Number of local APICs, present or not.
    pub fn len(&self) -> usize {
        self.addresses.len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// Calls `found` with the index of each APIC that matches, each once.
    pub fn for_each(&self, destination: Destination, mut found: impl FnMut(usize)) {
        match destination {
            Destination::Broadcast => {
                self.addresses.iter().enumerate().filter(|(_, a)| a.present).for_each(|(index, _)| found(index));
            }
            Destination::Byte255 { logical } => self.for_each_byte_255(logical, found),
            Destination::Physical(id) => {
                if let Some(&index) = self.physical.get(id as usize).filter(|&&index| index != NOBODY) {
                    found(index as usize);
                }
            }
            Destination::Logical(mda) => self.for_each_logical(mda, found),
        }
    }

    /// KVM's reading of 0xff, which goes with its extension of the destination to 15 bits: in a machine with IDs beyond
    /// 8 bits it is no broadcast in x2APIC mode, where 255 may be somebody's ID (api.rst, section
    /// "KVM_CAP_X2APIC_API").
    fn for_each_byte_255(&self, logical: bool, mut found: impl FnMut(usize)) {
        for (index, address) in self.addresses.iter().enumerate().filter(|(_, a)| a.present) {
            let matches = match address.logical {
                LogicalId::X2Apic(ldr) if self.wide => {
                    if logical {
                        ldr >> 16 == 0 && ldr & 0xff != 0
                    } else {
                        address.id == 0xff
                    }
                }
                _ => true,
            };
            if matches {
                found(index);
            }
        }
    }

    fn for_each_logical(&self, mda: u32, mut found: impl FnMut(usize)) {
        if let Ok(mda) = u8::try_from(mda) {
            let mut visit = |members: &[(u8, u32)], bits: u8| {
                members.iter().filter(|(mask, _)| mask & bits != 0).for_each(|&(_, index)| found(index as usize));
            };
            visit(&self.flat, mda);
            visit(&self.clusters[usize::from(mda >> 4)], mda & 0xf);
        }
        let members = self.x2apic.get((mda >> 16) as usize).map_or(&[][..], Vec::as_slice);
        let hit = |mask: u16| mask & mda as u16 != 0 && (mask == mda as u16 || !fault::is(Fault::LogicalMaskExact));
        members.iter().filter(|(mask, _)| hit(*mask)).for_each(|&(_, index)| found(index as usize));
    }
}

fn slot<T: Clone>(list: &mut Vec<T>, index: usize, empty: T) -> &mut T {
    if list.len() <= index {
        list.resize(index + 1, empty);
    }
    &mut list[index]
}

#[cfg(all(test, not(loom)))]
mod tests;
