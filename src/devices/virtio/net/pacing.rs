//! When the transmit queue is looked at again: at the driver's next notification, or a little later without one.
//!
//! Each notification takes the processor out of the guest, and each batch that is sent ends with an interrupt. A driver that sends small
//! packets one after the other, and waits for no answer, is served in larger batches: having sent what is there, the device does not ask for
//! a notification, but looks again after [`LINGER`]. The first packets of such a stream are sent at once, as everything else is.

/// How long a stream's next packets may gather, in ns: the most by which one is late. A queue of 256 is full in that time at over a
/// million packets a second.
pub(super) const LINGER: u64 = 200_000;
/// So many runs after a first one, each sending something and none with an answer before it, are a stream.
pub(super) const STREAM: u32 = 4;
/// Runs further apart than this (ns) are none.
const APART: u64 = 1_000_000;
/// Packets longer than this, on average, are not worth waiting for: what moves their bytes costs more than a notification, and their
/// sender may wait for the last one to be done.
const SMALL: usize = 2048;

/// What a run has sent.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sent {
    pub packets: usize,
    pub bytes: usize,
}

/// What is known of a queue's latest runs.
#[derive(Debug, Default)]
pub(super) struct Pacing {
    /// The end of the last one.
    last: u64,
    streak: u32,
    lingers: bool,
}

impl Pacing {
    /// A packet has come in by the same pair: it may be an answer.
    pub fn answered(&mut self) {
        self.streak = 0;
    }

    /// A run has sent this, and the queue is empty at `now` (ns). True: look again after [`LINGER`]; false: ask for a notification.
    pub fn lingers(&mut self, sent: Sent, now: u64) -> bool {
        let close = now.saturating_sub(self.last) <= APART;
        self.last = now;
        // One packet could as well have been notified of.
        let enough = sent.packets > usize::from(self.lingers);
        let small = sent.bytes <= SMALL * sent.packets;
        self.streak = if close && enough && small { self.streak.saturating_add(1) } else { 0 };
        self.lingers = self.streak >= STREAM;
        self.lingers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Sent = Sent { packets: 1, bytes: 60 };
    const TWO: Sent = Sent { packets: 2, bytes: 120 };

    /// Runs 100 us apart; the answers of those with this.
    fn runs(pacing: &mut Pacing, from: u64, sent: &[Sent]) -> Vec<bool> {
        (1..).zip(sent).map(|(n, &sent)| pacing.lingers(sent, from + 100_000 * n)).collect()
    }

    #[test]
    fn a_stream_of_small_packets_gathers_after_its_first_ones() {
        let mut pacing = Pacing::default();
        assert_eq!(runs(&mut pacing, 0, &[ONE, ONE, ONE, ONE, TWO, TWO]), [false, false, false, true, true, true]);
        // One in the time that was waited is not more than notifications would have brought.
        assert_eq!(runs(&mut pacing, 600_000, &[ONE, ONE, ONE, ONE, ONE]), [false, false, false, false, true]);
        assert_eq!(runs(&mut pacing, 1_100_000, &[Sent::default()]), [false]);
    }

    #[test]
    fn what_has_answers_or_is_rare_or_long_does_not_wait() {
        let mut pacing = Pacing::default();
        for n in 0..20 {
            assert!(!pacing.lingers(ONE, 100_000 * n), "answer {n}");
            pacing.answered();
        }
        assert!((0..20).all(|n| !pacing.lingers(ONE, 10_000_000 + (APART + 1) * n)), "rare");
        let long = Sent { packets: 3, bytes: 3 * SMALL + 1 };
        assert_eq!(runs(&mut pacing, 100_000_000, &[long; 20]), [false; 20]);
    }
}
