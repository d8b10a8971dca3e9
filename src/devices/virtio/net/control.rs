//! The control queue (VIRTIO 1.2, section "Control Virtqueue"): one command, how many pairs of queues the driver uses.
//!
//! A command is in what the device reads: class, command, data. The answer is the first byte of what it writes; where there is none the
//! driver hears nothing, and nothing is done.

use bottom_half::Turn;

use super::super::Common;
use super::super::queue::{read, total, write};
use super::{CONTROL, MULTIQUEUE, Net};

/// Commands in one turn.
const BUDGET: usize = 64;

/// Class and command (section "Automatic receive steering in multiqueue mode").
const SET_PAIRS: [u8; 2] = [4, 0];
/// Bytes of that command: class, command, how many.
const SET_PAIRS_BYTES: usize = 4;

/// Answers.
const OK: u8 = 0;
const ERR: u8 = 1;

/// The control queue of a device with so many pairs, if the driver has agreed on one: it is behind all pairs, or without
/// VIRTIO_NET_F_MQ behind the first (section "Virtqueues").
pub(super) fn queue(pairs: u16, common: &Common) -> Option<u16> {
    let pairs = if common.has(MULTIQUEUE) { pairs } else { 1 };
    common.has(CONTROL).then_some(2 * pairs)
}

impl Net {
    /// Carries out what is in the queue, within its budget.
    pub(super) fn serve_control(&mut self, common: &mut Common) -> Turn {
        let Some(queue) = self.control_queue else { return Turn::Done };
        common.no_notification(queue);
        let mut turn = Turn::Again;
        let mut any = false;
        for _ in 0..BUDGET {
            let Some(chain) = common.pop(queue) else {
                if common.want_notification(queue) {
                    continue;
                }
                turn = Turn::Done;
                break;
            };
            let mut written = 0;
            if total(chain.writable()) > 0 {
                let mut command = [0; SET_PAIRS_BYTES];
                let len = read(common.memory(), chain.readable(), 0, &mut command);
                let answer = self.command(&command[..len], common);
                written = write(common.memory(), chain.writable(), 0, &[answer]);
            }
            common.push(queue, chain.head(), written as u32);
            any = true;
        }
        if any {
            common.done(queue);
        }
        turn
    }

    /// One command; one that is none changes nothing.
    fn command(&mut self, command: &[u8], common: &Common) -> u8 {
        let &[class, number, low, high] = command else { return ERR };
        let pairs = u16::from_le_bytes([low, high]);
        let possible = 1..=self.pairs.len() as u16;
        if [class, number] != SET_PAIRS || !common.has(MULTIQUEUE) || !possible.contains(&pairs) {
            return ERR;
        }
        self.activate(pairs);
        OK
    }
}
