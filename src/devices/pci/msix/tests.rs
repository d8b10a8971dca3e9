use std::sync::Arc;

use irqchip::line::MsiTarget;
use parking_lot::Mutex;

use super::*;
use crate::testing::Messages;

const ON: u16 = 1 << 15;
const ALL_MASKED: u16 = 1 << 14;

fn vectors(count: u16) -> (MsiX, Arc<Messages>) {
    let (msi, messages) = Messages::with_handle();
    (MsiX::new(msi, count), messages)
}

/// Programs `vector` with address 0xfee0_0000 and its number as data.
fn program(msix: &mut MsiX, vector: u64, masked: bool) {
    let at = vector * ENTRY_BYTES;
    msix.write_table(at, &0xfee0_0000u64.to_le_bytes());
    msix.write_table(at + 8, &(vector as u32).to_le_bytes());
    msix.write_table(at + 12, &u32::from(masked).to_le_bytes());
}

fn pending(msix: &MsiX) -> u64 {
    let mut data = [0; 8];
    msix.read_pending(0, &mut data);
    u64::from_le_bytes(data)
}

#[test]
fn a_vector_sends_its_message_when_it_is_raised() {
    let (mut msix, messages) = vectors(3);
    program(&mut msix, 1, false);
    msix.raise(1);
    assert_eq!(messages.take(), [], "disabled");
    msix.set_control(ON);
    assert_eq!((messages.take(), pending(&msix)), (vec![], 0), "what came before it was enabled is gone");
    msix.raise(1);
    msix.raise(1);
    assert_eq!(messages.take(), [(0xfee0_0000, 1), (0xfee0_0000, 1)]);
    msix.raise(3);
    msix.raise(0xffff);
    assert_eq!((messages.take(), pending(&msix)), (vec![], 0), "there is no such vector");
}

#[test]
fn a_masked_vector_is_pending_until_it_is_unmasked() {
    let (mut msix, messages) = vectors(2);
    msix.set_control(ON);
    program(&mut msix, 0, true);
    program(&mut msix, 1, true);
    msix.raise(0);
    msix.raise(0);
    msix.raise(1);
    assert_eq!((messages.take(), pending(&msix)), (vec![], 3));
    program(&mut msix, 0, false);
    assert_eq!((messages.take(), pending(&msix)), (vec![(0xfee0_0000, 0)], 2), "once, however often it was raised");
    // The whole function.
    msix.set_control(ON | ALL_MASKED);
    program(&mut msix, 1, false);
    msix.raise(0);
    assert_eq!((messages.take(), pending(&msix)), (vec![], 3));
    msix.set_control(ON);
    assert_eq!((messages.take(), pending(&msix)), (vec![(0xfee0_0000, 0), (0xfee0_0000, 1)], 0));
}

#[test]
fn the_table_is_read_and_written_by_aligned_dwords_and_quadwords() {
    let (mut msix, _) = vectors(2);
    let read = |msix: &MsiX, offset, len| {
        let mut data = vec![0xaa; len];
        msix.read_table(offset, &mut data);
        data
    };
    assert_eq!(read(&msix, 12, 4), [1, 0, 0, 0], "masked at first");
    msix.write_table(16, &[0xff; 8]);
    msix.write_table(24, &[0xff; 8]);
    assert_eq!(read(&msix, 16, 8), [0xfc, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], "an address is aligned");
    assert_eq!(read(&msix, 24, 8), [0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0], "of vector control there is one bit");
    for (offset, data) in [(16, &[0; 1][..]), (17, &[0; 4]), (20, &[0; 8]), (16, &[0; 3])] {
        msix.write_table(offset, data);
        assert_eq!(read(&msix, offset, data.len()), vec![0; data.len()]);
    }
    assert_eq!(read(&msix, 16, 4), [0xfc, 0xff, 0xff, 0xff]);
    assert_eq!(read(&msix, 32, 8), [0; 8]);
    msix.write_table(32, &[0xff; 8]);
    msix.write_table(u64::MAX - 7, &[0xff; 8]);
    assert_eq!(read(&msix, u64::MAX - 7, 8), [0; 8]);
}

#[test]
fn the_capability_says_where_the_table_is() {
    let (msix, _) = vectors(5);
    let (body, writable) = msix.capability(2, 0x4000, 0x5000);
    assert_eq!(body, [4, 0, 2, 0x40, 0, 0, 2, 0x50, 0, 0]);
    assert_eq!(writable, [0, 0xc0]);
}

#[test]
fn a_reset_masks_all_and_forgets_what_is_pending() {
    let (mut msix, messages) = vectors(1);
    msix.set_control(ON);
    program(&mut msix, 0, true);
    msix.raise(0);
    msix.reset();
    assert!(!msix.is_enabled());
    msix.set_control(ON);
    msix.write_table(12, &[0; 4]);
    assert_eq!(messages.take(), []);
}

/// An NMI's data; the vector does not count.
const NMI: u32 = 4 << 8 | 2;
const INIT: u32 = 5 << 8;

#[test]
fn a_vector_that_can_be_sent_says_whether_it_is_an_nmi() {
    let (mut msix, _) = vectors(2);
    program(&mut msix, 0, false);
    program(&mut msix, 1, false);
    msix.set_control(ON);
    assert!(!msix.can_give_nmi(), "fixed");
    for data in [NMI, INIT] {
        msix.write_table(ENTRY_BYTES + 8, &data.to_le_bytes());
        assert!(msix.can_give_nmi());
    }
    // Each thing that keeps it from being sent.
    msix.write_table(ENTRY_BYTES + 12, &1u32.to_le_bytes());
    assert!(!msix.can_give_nmi(), "masked");
    msix.write_table(ENTRY_BYTES + 12, &0u32.to_le_bytes());
    msix.set_control(ON | ALL_MASKED);
    assert!(!msix.can_give_nmi(), "masked as a whole");
    msix.set_control(0);
    assert!(!msix.can_give_nmi(), "disabled");
    msix.set_control(ON);
    assert!(msix.can_give_nmi());
    msix.write_table(ENTRY_BYTES, &0x1000u64.to_le_bytes());
    assert!(!msix.can_give_nmi(), "no interrupt message");
}

/// Where messages go that have ways of their own, as long as this takes their routes.
#[derive(Default)]
struct Ways(Mutex<State>);

#[derive(Default)]
struct State {
    refuses: bool,
    ways: usize,
    routes: usize,
    signalled: Vec<Message>,
    sent: Vec<Message>,
}

struct Own(Arc<Ways>, Option<Message>);

impl MsiVector for Own {
    fn route(&mut self, address: u64, data: u32) -> bool {
        let mut state = self.0.0.lock();
        state.routes += 1;
        self.1 = (!state.refuses).then_some((address, data));
        self.1.is_some()
    }

    fn signal(&self) -> bool {
        self.0.0.lock().signalled.extend(self.1);
        self.1.is_some()
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.0.0.lock().ways -= 1;
    }
}

/// As a device has it.
struct Target(Arc<Ways>);

impl MsiTarget for Target {
    fn send(&self, address: u64, data: u32) {
        self.0.0.lock().sent.push((address, data));
    }

    fn vector(&self) -> Option<Box<dyn MsiVector>> {
        self.0.0.lock().ways += 1;
        Some(Box::new(Own(Arc::clone(&self.0), None)))
    }
}

fn routed(count: u16) -> (MsiX, Arc<Ways>) {
    let ways = Arc::new(Ways::default());
    (MsiX::new(Msi::new(Arc::new(Target(Arc::clone(&ways)))), count), ways)
}

impl Ways {
    fn counts(&self) -> (usize, usize) {
        let state = self.0.lock();
        (state.ways, state.routes)
    }

    /// What was signalled and what was sent since the last look.
    fn take(&self) -> (Vec<Message>, Vec<Message>) {
        let mut state = self.0.lock();
        (std::mem::take(&mut state.signalled), std::mem::take(&mut state.sent))
    }
}

const AT: u64 = 0xfee0_0000;

/// Red when: a way is set for what can't be sent, or not set anew when the entry changes.
#[test]
fn a_way_of_its_own_follows_the_entry_while_that_is_not_masked() {
    let (mut msix, ways) = routed(3);
    program(&mut msix, 1, false);
    assert_eq!(ways.counts(), (0, 0), "disabled");
    msix.set_control(ON | ALL_MASKED);
    assert_eq!(ways.counts(), (0, 0), "masked as a whole");
    msix.set_control(ON);
    assert_eq!(ways.counts(), (1, 1), "for the one that is not masked");
    msix.raise(1);
    assert_eq!(ways.take(), (vec![(AT, 1)], vec![]));
    // As Linux moves an interrupt: masked, changed, and unmasked. What comes meanwhile is pending.
    msix.write_table(ENTRY_BYTES + 12, &1u32.to_le_bytes());
    msix.write_table(ENTRY_BYTES, &(AT + 0x1000).to_le_bytes());
    msix.write_table(ENTRY_BYTES + 8, &0x42u32.to_le_bytes());
    msix.raise(1);
    assert_eq!((ways.counts(), ways.take(), pending(&msix)), ((1, 1), (vec![], vec![]), 2));
    msix.write_table(ENTRY_BYTES + 12, &0u32.to_le_bytes());
    assert_eq!((ways.counts(), ways.take(), pending(&msix)), ((1, 2), (vec![(AT + 0x1000, 0x42)], vec![]), 0));
    // Nothing has changed.
    msix.set_control(ON);
    msix.write_table(ENTRY_BYTES + 12, &0u32.to_le_bytes());
    assert_eq!(ways.counts(), (1, 2));
    msix.reset();
    assert_eq!(ways.counts(), (0, 2), "as new");
}

#[test]
fn a_route_that_is_refused_leaves_messages_to_be_sent() {
    let (mut msix, ways) = routed(1);
    program(&mut msix, 0, false);
    msix.set_control(ON);
    ways.0.lock().refuses = true;
    msix.write_table(8, &7u32.to_le_bytes());
    msix.raise(0);
    assert_eq!(ways.take(), (vec![], vec![(AT, 7)]), "never by the route of before");
    // It is tried again with the next change.
    ways.0.lock().refuses = false;
    msix.write_table(8, &8u32.to_le_bytes());
    msix.raise(0);
    assert_eq!(ways.take(), (vec![(AT, 8)], vec![]));
}
