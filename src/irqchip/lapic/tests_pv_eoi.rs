//! Paravirtual EOI: when the byte is set, and what the guest's answer does.

use std::cell::Cell;

use proptest::prelude::*;

use super::tests::*;
use super::*;

const ADDRESS: u64 = 0x1000;

#[derive(Default)]
struct Byte(Cell<u8>);

impl EoiFlag for Byte {
    fn set(&self, address: u64) -> bool {
        assert_eq!(address, ADDRESS);
        self.0.set(1);
        true
    }

    fn take(&self, address: u64) -> bool {
        assert_eq!(address, ADDRESS);
        self.0.replace(0) & 1 != 0
    }
}

fn enabled() -> PvEoi {
    let mut pv = PvEoi::new();
    assert_eq!(pv.write_msr(ADDRESS | 1, |_| true), Ok(()));
    pv
}

fn armed(apic: &LocalApic) -> bool {
    let (mut pv, byte) = (enabled(), Byte::default());
    pv.arm(apic, &byte);
    assert_eq!(pv.is_armed(), byte.0.get() == 1);
    pv.is_armed()
}

#[test]
fn the_msr_is_checked() {
    let mut pv = PvEoi::new();
    assert_eq!(pv.write_msr(ADDRESS | 2, |_| true), Err(Gp), "bit 1");
    assert_eq!(pv.write_msr(ADDRESS | 3, |_| true), Err(Gp));
    assert_eq!(pv.write_msr(ADDRESS | 1, |at| at != ADDRESS), Err(Gp), "no memory");
    assert_eq!(pv.msr(), 0, "and nothing has changed");
    assert_eq!(pv.write_msr(ADDRESS, |_| false), Ok(()), "off: the address does not count");
    assert_eq!(pv.msr(), ADDRESS);
    pv.arm(&apic_with_one_edge(), &Byte::default());
    assert!(!pv.is_armed());
    assert_eq!(pv.write_msr(ADDRESS | 1, |at| at == ADDRESS), Ok(()));
    pv.reset();
    assert_eq!(pv.msr(), 0, "INIT switches it off");
}

fn apic_with_one_edge() -> LocalApic {
    let mut apic = xapic();
    service(&mut apic, 0x51, EDGE);
    apic
}

#[test]
fn armed_only_for_a_single_edge_with_nothing_behind_it() {
    assert!(!armed(&xapic()), "nothing in service");
    assert!(armed(&apic_with_one_edge()));
    let mut apic = apic_with_one_edge();
    apic.accept(0x31, EDGE);
    assert!(!armed(&apic), "the next one waits for the EOI");
    let mut apic = apic_with_one_edge();
    service(&mut apic, 0x61, EDGE);
    assert!(!armed(&apic), "two in service");
    let mut apic = xapic();
    service(&mut apic, 0x51, LEVEL);
    assert!(!armed(&apic), "the I/O APIC waits for the EOI");
    assert!(!PvEoi::new().is_armed());
}

#[test]
fn a_cleared_byte_is_an_eoi_and_a_set_one_is_not() {
    let (mut pv, byte, mut apic) = (enabled(), Byte::default(), apic_with_one_edge());
    pv.arm(&apic, &byte);
    pv.disarm(&mut apic, &byte);
    assert!(apic.isr().contains(0x51), "the handler still runs");
    assert_eq!((byte.0.get(), pv.spared()), (0, 0));
    pv.arm(&apic, &byte);
    byte.0.set(0);
    pv.disarm(&mut apic, &byte);
    assert!(apic.isr().is_empty());
    assert_eq!(pv.spared(), 1);
    pv.disarm(&mut apic, &byte);
    assert_eq!(pv.spared(), 1, "nothing is read back that was not shown");
}

#[test]
fn memory_that_is_gone_ends_nothing() {
    struct Gone;
    impl EoiFlag for Gone {
        fn set(&self, _: u64) -> bool {
            false
        }
        fn take(&self, _: u64) -> bool {
            false
        }
    }
    let (mut pv, mut apic) = (enabled(), apic_with_one_edge());
    pv.arm(&apic, &Gone);
    pv.disarm(&mut apic, &Gone);
    assert!(apic.isr().contains(0x51));
}

/// What happens in the guest or outside between two entries.
#[derive(Debug, Clone)]
enum Step {
    Post(u8, bool),
    /// The guest's handler ends: by the byte if it is set, else by the register.
    End,
    /// The guest ends by the register without a look at the byte.
    EndByRegister,
    Enter,
    Tpr(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0x20..0x60u8, any::<bool>()).prop_map(|(vector, level)| Step::Post(vector, level)),
        4 => Just(Step::End),
        1 => Just(Step::EndByRegister),
        4 => Just(Step::Enter),
        1 => (0..0x50u8).prop_map(Step::Tpr),
    ]
}

proptest! {
    /// With and without the byte, a guest gets the same interrupts in the same order; each end ends one.
    #[test]
    fn a_guest_cannot_tell(steps in prop::collection::vec(step(), 1..100)) {
        let (mut plain, mut with) = (xapic(), xapic());
        let (mut pv, byte) = (enabled(), Byte::default());
        for step in steps {
            match step {
                Step::Post(vector, level) => {
                    let trigger = if level { LEVEL } else { EDGE };
                    // The kick: an exit, then the request.
                    pv.disarm(&mut with, &byte);
                    plain.accept(vector, trigger);
                    with.accept(vector, trigger);
                }
                Step::End => {
                    let effect = plain.eoi();
                    if byte.0.replace(0) == 0 {
                        pv.disarm(&mut with, &byte);
                        prop_assert_eq!(effect, with.eoi());
                    } else {
                        prop_assert_eq!(effect, Effect::None, "somebody waits for this EOI");
                        prop_assert_eq!(plain.deliverable(), None, "something was free to come");
                    }
                }
                Step::EndByRegister => {
                    pv.disarm(&mut with, &byte);
                    prop_assert_eq!(plain.eoi(), with.eoi());
                }
                Step::Enter => {
                    pv.disarm(&mut with, &byte);
                    prop_assert_eq!(plain.acknowledge(), with.acknowledge());
                    pv.arm(&with, &byte);
                }
                Step::Tpr(tpr) => {
                    pv.disarm(&mut with, &byte);
                    let _ = (write(&mut plain, 0x80, tpr.into()), write(&mut with, 0x80, tpr.into()));
                }
            }
        }
        pv.disarm(&mut with, &byte);
        prop_assert_eq!(plain, with);
    }
}
