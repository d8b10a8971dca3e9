//! Destinations against hand-made tables, and against a scan that reads like the manual.

use proptest::prelude::*;

use super::*;

fn address(id: u32, logical: LogicalId) -> Address {
    Address { present: true, id, logical, enabled: true }
}

fn found(table: &DestinationTable, destination: Destination) -> Vec<usize> {
    let mut found = Vec::new();
    table.for_each(destination, |index| found.push(index));
    found.sort_unstable();
    found
}

#[test]
fn a_physical_destination_is_the_one_with_that_id() {
    let table = DestinationTable::new([7, 0, 300].map(|id| address(id, LogicalId::None)).to_vec());
    assert_eq!(found(&table, Destination::Physical(7)), [0]);
    assert_eq!(found(&table, Destination::Physical(0)), [1]);
    assert_eq!(found(&table, Destination::Physical(300)), [2]);
    for absent in [1, 6, 8, 299, 301, 0xff, u32::MAX] {
        assert_eq!(found(&table, Destination::Physical(absent)), [], "{absent}");
    }
}

#[test]
fn flat_destinations_match_any_common_bit() {
    let table = DestinationTable::new([1, 2, 4, 0x80, 0, 3].map(|mask| address(0, LogicalId::Flat(mask))).to_vec());
    assert_eq!(found(&table, Destination::Logical(0x01)), [0, 5]);
    assert_eq!(found(&table, Destination::Logical(0x86)), [1, 2, 3, 5]);
    assert_eq!(found(&table, Destination::Logical(0x70)), []);
    assert_eq!(found(&table, Destination::Logical(0)), []);
}

#[test]
fn cluster_destinations_match_the_cluster_and_any_common_bit() {
    let ids = [0x01, 0x02, 0x11, 0x18, 0xe4, 0xf1, 0x10];
    let table = DestinationTable::new(ids.map(|id| address(0, LogicalId::Cluster(id))).to_vec());
    assert_eq!(found(&table, Destination::Logical(0x03)), [0, 1]);
    assert_eq!(found(&table, Destination::Logical(0x1f)), [2, 3]);
    assert_eq!(found(&table, Destination::Logical(0xe4)), [4]);
    assert_eq!(found(&table, Destination::Logical(0x10)), []);
    assert_eq!(found(&table, Destination::Logical(0x21)), []);
    assert_eq!(found(&table, Destination::Logical(0xf3)), [5], "only all ones is the broadcast");
}

#[test]
fn x2apic_destinations_match_the_cluster_and_any_common_bit() {
    let table = DestinationTable::new(
        [0x0000_0001, 0x0000_8000, 0x0001_0001, 0x0100_0002].map(|id| address(0, LogicalId::X2Apic(id))).to_vec(),
    );
    assert_eq!(found(&table, Destination::Logical(0x0000_8001)), [0, 1]);
    assert_eq!(found(&table, Destination::Logical(0x0001_ffff)), [2]);
    assert_eq!(found(&table, Destination::Logical(0x0100_0003)), [3]);
    assert_eq!(found(&table, Destination::Logical(0x0100_0001)), []);
    assert_eq!(found(&table, Destination::Logical(0xffff_0001)), []);
    assert_eq!(found(&table, Destination::Logical(0x0001_0000)), []);
}

#[test]
fn a_broadcast_is_for_everyone_who_is_there() {
    let table = DestinationTable::new(vec![
        address(0, LogicalId::Flat(0)),
        Address::DISABLED,
        address(2, LogicalId::None),
        address(3, LogicalId::Cluster(0xf0)),
        address(4, LogicalId::X2Apic(0x10)),
    ]);
    assert_eq!(found(&table, Destination::Broadcast), [0, 2, 3, 4]);
    assert_eq!(found(&table, Destination::Physical(1)), []);
}

#[test]
fn in_a_machine_with_wide_ids_the_byte_255_is_an_id_in_x2apic_mode_and_everyone_in_xapic_mode() {
    let x2apic = |id: u32| address(id, LogicalId::X2Apic((id >> 4) << 16 | 1 << (id & 0xf)));
    let all = [0, 255, 256, 300, 32766].map(x2apic);
    let table = DestinationTable::new(all.to_vec());
    assert_eq!(found(&table, Destination::Byte255 { logical: false }), [1]);
    assert_eq!(found(&table, Destination::Byte255 { logical: true }), [0], "the first eight of cluster 0");
    for (index, id) in [0, 255, 256, 300, 32766].into_iter().enumerate() {
        assert_eq!(found(&table, Destination::Physical(id)), [index]);
    }
    // An application processor that has not been started, and one that firmware left in xAPIC mode.
    let table = DestinationTable::new(vec![x2apic(0), address(300, LogicalId::Flat(0))]);
    assert_eq!(found(&table, Destination::Byte255 { logical: false }), [1]);
    // Nobody has a wide ID: it is what it always was.
    let table = DestinationTable::new(vec![x2apic(0), x2apic(254)]);
    for logical in [false, true] {
        assert_eq!(found(&table, Destination::Byte255 { logical }), [0, 1]);
    }
}

#[test]
fn a_disabled_apic_does_not_stand_in_for_id_0() {
    let table = DestinationTable::new(vec![Address::DISABLED, address(5, LogicalId::Flat(1))]);
    assert_eq!(found(&table, Destination::Physical(0)), []);
    assert_eq!(found(&table, Destination::Logical(0xff)), [1]);
}

#[test]
fn a_wrong_destination_format_matches_no_logical_destination() {
    let table = DestinationTable::new(vec![address(5, LogicalId::None)]);
    for mda in 0..=0x1ff {
        assert_eq!(found(&table, Destination::Logical(mda)), []);
    }
    assert_eq!(found(&table, Destination::Physical(5)), [0]);
}

#[test]
fn modes_may_be_mixed() {
    let table = DestinationTable::new(vec![
        address(0, LogicalId::Flat(0x11)),
        address(1, LogicalId::Cluster(0x11)),
        address(2, LogicalId::X2Apic(0x11)),
    ]);
    assert_eq!(found(&table, Destination::Logical(0x11)), [0, 1, 2]);
    assert_eq!(found(&table, Destination::Logical(0x01)), [0, 2]);
    assert_eq!(found(&table, Destination::Logical(0x1_0011)), [], "a wide destination is x2APIC's");
}

#[test]
fn an_empty_machine_has_nobody() {
    let table = DestinationTable::new(Vec::new());
    assert!(table.is_empty());
    for destination in [Destination::Broadcast, Destination::Physical(0), Destination::Logical(u32::MAX)] {
        assert_eq!(found(&table, destination), []);
    }
}

#[test]
fn of_two_with_one_id_the_first_answers() {
    let table = DestinationTable::new(vec![address(9, LogicalId::None), address(9, LogicalId::None)]);
    assert_eq!(found(&table, Destination::Physical(9)), [0]);
    assert_eq!((table.len(), table.address(1), table.address(2)), (2, Some(&address(9, LogicalId::None)), None));
}

/// Whether the APIC at `address` accepts, as the manual tells it for one APIC that sees a message go by.
fn matches(address: &Address, destination: Destination, wide: bool) -> bool {
    address.present
        && match (destination, address.logical) {
            (Destination::Byte255 { logical: false }, LogicalId::X2Apic(_)) if wide => address.id == 0xff,
            (Destination::Byte255 { logical: true }, LogicalId::X2Apic(_)) if wide => {
                matches(address, Destination::Logical(0xff), wide)
            }
            _ => matches_in_any_mode(address, destination),
        }
}

fn matches_in_any_mode(address: &Address, destination: Destination) -> bool {
    address.present
        && match destination {
            Destination::Broadcast | Destination::Byte255 { .. } => true,
            Destination::Physical(id) => address.id == id,
            Destination::Logical(mda) => match address.logical {
                LogicalId::None => false,
                LogicalId::Flat(mask) => mda <= 0xff && u32::from(mask) & mda != 0,
                LogicalId::Cluster(id) => {
                    mda <= 0xff && u32::from(id) >> 4 == mda >> 4 && u32::from(id) & mda & 0xf != 0
                }
                LogicalId::X2Apic(id) => id >> 16 == mda >> 16 && id & mda & 0xffff != 0,
            },
        }
}

fn any_logical() -> impl Strategy<Value = LogicalId> {
    prop_oneof![
        Just(LogicalId::None),
        any::<u8>().prop_map(LogicalId::Flat),
        any::<u8>().prop_map(LogicalId::Cluster),
        (0..4u32, 0..16u32).prop_map(|(cluster, bit)| LogicalId::X2Apic(cluster << 16 | 1 << bit)),
    ]
}

fn any_destination() -> impl Strategy<Value = Destination> {
    prop_oneof![
        Just(Destination::Broadcast),
        any::<bool>().prop_map(|logical| Destination::Byte255 { logical }),
        (0..40u32).prop_map(Destination::Physical),
        any::<u32>().prop_map(Destination::Physical),
        (0..=0xffu32).prop_map(Destination::Logical),
        (0..5u32, any::<u16>()).prop_map(|(cluster, bits)| Destination::Logical(cluster << 16 | u32::from(bits))),
        any::<u32>().prop_map(Destination::Logical),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_table_finds_whom_a_scan_finds_each_once(
        apics in prop::collection::vec((any::<bool>(), any_logical(), any::<bool>()), 0..20),
        destination in any_destination(),
        stride in prop_oneof![Just(2u32), Just(51), Just(255)],
    ) {
        let addresses: Vec<_> = apics
            .into_iter()
            .enumerate()
            .map(|(index, (present, logical, enabled))| Address { present, id: stride * index as u32, logical, enabled })
            .collect();
        let wide = addresses.iter().any(|address| address.present && address.id >= 0xff);
        let expected: Vec<_> =
            (0..addresses.len()).filter(|&index| matches(&addresses[index], destination, wide)).collect();
        prop_assert_eq!(found(&DestinationTable::new(addresses), destination), expected);
    }
}
