use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::config::{CONFIG_BYTES, Identity};
use super::*;
use crate::testing::Messages as Sent;

struct Rig {
    config: ConfigSpace,
    msi: Msi,
    sent: Arc<Sent>,
}

impl Rig {
    fn new(log2: u8) -> Self {
        let (messages, sent) = Sent::with_handle();
        let identity = Identity { id: (1, 2), revision: 0, class: (0xff, 0, 0), subsystem: (0, 0) };
        let mut config = ConfigSpace::new(&identity);
        let msi = Msi::add(&mut config, messages, log2);
        Self { config, msi, sent }
    }

    fn write(&mut self, at: usize, data: &[u8]) {
        self.config.write(self.msi.at + at, data);
        self.msi.written(&mut self.config);
    }

    /// Address 0xfee0_1000, data 0x40, so many vectors as a power of two.
    fn enable(&mut self, log2: u16) {
        self.write(ADDRESS, &0xfee0_1000u64.to_le_bytes());
        self.write(DATA, &0x40u16.to_le_bytes());
        self.write(CONTROL, &(ENABLE | log2 << ENABLED_SHIFT).to_le_bytes());
    }

    fn raise(&mut self, vector: u16) {
        self.msi.raise(&mut self.config, vector);
    }

    fn data(&self) -> Vec<u32> {
        self.sent.take().into_iter().map(|(_, data)| data).collect()
    }

    fn pending(&self) -> u32 {
        self.config.u32_at(self.msi.at + PENDING)
    }
}

#[test]
fn the_capability_says_how_many_vectors_there_are_and_that_each_can_be_masked() {
    let rig = Rig::new(3);
    let at = rig.msi.at;
    assert_eq!(rig.config.u16_at(at) & 0xff, 0x05);
    assert_eq!(rig.config.u16_at(at + CONTROL), 3 << 1 | 1 << 7 | 1 << 8);
    let mut rig = rig;
    rig.write(CONTROL, &[0xff; 2]);
    rig.write(ADDRESS, &[0xff; 0x14]);
    assert_eq!(rig.config.u16_at(at + CONTROL), 0x1 | 3 << 1 | 7 << 4 | 1 << 7 | 1 << 8);
    assert_eq!(rig.config.u32_at(at + ADDRESS), 0xffff_fffc);
    assert_eq!(rig.config.u32_at(at + DATA), 0xffff);
    assert_eq!((rig.config.u32_at(at + MASK), rig.pending()), (0xff, 0));
}

#[test]
fn each_vector_has_its_number_in_the_data() {
    let mut rig = Rig::new(2);
    rig.raise(0);
    assert_eq!(rig.sent.take(), [], "disabled");
    rig.enable(2);
    rig.raise(0);
    rig.raise(3);
    assert_eq!(rig.sent.take(), [(0xfee0_1000, 0x40), (0xfee0_1000, 0x43)]);
    rig.raise(9);
    assert_eq!(rig.data(), [0x43], "the last stands for what is beyond");
    rig.write(DATA, &0x57u16.to_le_bytes());
    rig.raise(1);
    assert_eq!(rig.data(), [0x55], "the low bits are the vector's, whatever was written");
}

#[test]
fn with_one_vector_enabled_all_share_it() {
    let mut rig = Rig::new(2);
    rig.enable(0);
    rig.raise(0);
    rig.raise(2);
    assert_eq!(rig.data(), [0x40, 0x40]);
    // More than there are means all.
    rig.enable(7);
    rig.raise(3);
    assert_eq!(rig.data(), [0x43]);
}

#[test]
fn a_masked_vector_is_pending_until_it_is_unmasked() {
    let mut rig = Rig::new(2);
    rig.enable(2);
    rig.write(MASK, &[0b1010, 0, 0, 0]);
    for vector in [1, 1, 3, 0] {
        rig.raise(vector);
    }
    assert_eq!((rig.data(), rig.pending()), (vec![0x40], 0b1010));
    rig.write(PENDING, &[0; 4]);
    assert_eq!(rig.pending(), 0b1010, "software can't write it");
    rig.write(MASK, &[0b0010, 0, 0, 0]);
    assert_eq!((rig.data(), rig.pending()), (vec![0x43], 0b0010));
    // Disabled meanwhile, it still waits.
    rig.write(CONTROL, &[0; 2]);
    rig.write(MASK, &[0; 4]);
    assert_eq!((rig.data(), rig.pending()), (vec![], 0b0010));
    rig.write(CONTROL, &[1 | 2 << 4, 0]);
    assert_eq!((rig.data(), rig.pending()), (vec![0x41], 0));
}

proptest! {
    /// Against a model: what was raised while enabled is either sent or pending, and sent once for each rise of pending.
    #[test]
    fn nothing_is_lost_and_nothing_is_made_up(log2 in 0..=MAX_LOG2, steps in vec((0u8..4, any::<u32>()), 1..200)) {
        let mut rig = Rig::new(log2);
        let all = Msi::all(log2);
        let (mut on, mut enabled, mut mask, mut pending) = (false, 0u16, 0u32, 0u32);
        for (step, value) in steps {
            let mut expected = Vec::new();
            match step {
                0 => {
                    (on, enabled) = (value & 1 != 0, (value >> 4 & 7) as u16);
                    rig.write(CONTROL, &[value as u8, (value >> 8) as u8]);
                }
                1 => {
                    mask = value & all;
                    rig.write(MASK, &value.to_le_bytes());
                }
                _ => {
                    let vector = value as u16 % 40;
                    let count = 1u16 << enabled.min(log2.into());
                    pending |= u32::from(on) << vector.min(count - 1);
                    rig.raise(vector);
                }
            }
            if on {
                let count = 1u32 << enabled.min(log2.into());
                expected.extend((0..32).filter(|bit| pending & !mask & 1 << bit != 0).map(|bit| bit & (count - 1)));
                pending &= mask;
            }
            prop_assert_eq!(rig.data(), expected);
            prop_assert_eq!(rig.pending(), pending);
        }
        prop_assert!(rig.msi.at + BYTES <= CONFIG_BYTES);
    }
}

#[test]
fn vectors_that_can_be_sent_say_whether_they_are_nmis() {
    let mut rig = Rig::new(2);
    rig.enable(1);
    assert!(!rig.msi.can_give_nmi(&rig.config), "fixed");
    rig.write(DATA, &0x400u16.to_le_bytes());
    assert!(rig.msi.can_give_nmi(&rig.config));
    // Two are enabled: the masks of the other two don't count.
    rig.write(MASK, &0b0001u32.to_le_bytes());
    assert!(rig.msi.can_give_nmi(&rig.config));
    rig.write(MASK, &0b0011u32.to_le_bytes());
    assert!(!rig.msi.can_give_nmi(&rig.config), "masked");
    rig.write(MASK, &0u32.to_le_bytes());
    rig.write(CONTROL, &0u16.to_le_bytes());
    assert!(!rig.msi.can_give_nmi(&rig.config), "disabled");
}
