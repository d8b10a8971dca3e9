//! When the transmit queue is looked at again, at the driver's next notification or a little later without one; and when the driver is
//! interrupted for what has been sent.
//!
//! Each notification and each interrupt takes the processor out of the guest. A driver that sends small packets one after the other, and
//! waits for no answer, is served in larger batches: having sent what is there, the device does not ask for a notification, but looks
//! again after [`LINGER`]. The first packets of such a stream are sent at once, as everything else is.
//!
//! Interrupts for what has been sent are throttled, as network cards do: one at once after a pause, others no sooner than [`LINGER`] after
//! the last. They only give buffers back; none is held when many wait for it.

/// How long a stream's next packets may gather, in ns: the most by which one is late. A queue of 256 is full in that time at 850,000
/// packets a second.
pub(super) const LINGER: u64 = 300_000;
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

/// Packets whose interrupt is not put off.
const MANY: usize = 64;

/// What is known of a queue's latest runs.
#[derive(Debug, Default)]
pub(super) struct Pacing {
    /// The end of the last one.
    last: u64,
    streak: u32,
    lingers: bool,
    /// The time of the last interrupt, and packets sent since.
    interrupted: Option<u64>,
    sent: usize,
}

impl Pacing {
    /// A packet has come in by the same pair: it may be an answer.
    pub fn answered(&mut self) {
        self.streak = 0;
    }

    /// A run, told of once, has sent this, and the queue is empty at `now` (ns). True: look again after [`LINGER`]; false: ask for a notification.
    pub fn lingers(&mut self, sent: Sent, now: u64) -> bool {
        if sent.packets == 0 && !self.lingers {
            // It was for an interrupt.
            return false;
        }
        let close = now.saturating_sub(self.last) <= APART;
        self.last = now;
        // One packet could as well have been notified of.
        let enough = sent.packets > usize::from(self.lingers);
        let small = sent.bytes <= SMALL * sent.packets;
        self.streak = if close && enough && small { self.streak.saturating_add(1) } else { 0 };
        self.lingers = self.streak >= STREAM;
        self.lingers
    }

    /// A run that ends at `now` has sent so many packets.
    pub fn interrupt(&mut self, packets: usize, now: u64) -> Interrupt {
        self.sent += packets;
        let at = self.interrupted.map_or(now, |last| last + LINGER);
        if self.sent == 0 {
            Interrupt::None
        } else if at <= now || self.sent >= MANY {
            (self.interrupted, self.sent) = (Some(now), 0);
            Interrupt::Now
        } else {
            Interrupt::At(at)
        }
    }
}

/// When the driver is to be interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interrupt {
    /// Nothing new has been sent.
    None,
    Now,
    /// Not before this time; it is to be asked again then.
    At(u64),
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
    fn interrupts_keep_apart_and_none_is_forgotten() {
        let mut pacing = Pacing::default();
        assert_eq!(pacing.interrupt(0, 1000), Interrupt::None);
        assert_eq!(pacing.interrupt(1, 1000), Interrupt::Now);
        assert_eq!(pacing.interrupt(0, 1001), Interrupt::None);
        assert_eq!(pacing.interrupt(1, 1002), Interrupt::At(1000 + LINGER));
        assert_eq!(pacing.interrupt(0, 999 + LINGER), Interrupt::At(1000 + LINGER), "still owed");
        assert_eq!(pacing.interrupt(0, 1000 + LINGER), Interrupt::Now);
        assert_eq!(pacing.interrupt(0, 1001 + LINGER), Interrupt::None, "owed no more");
        assert_eq!(pacing.interrupt(MANY - 1, 1002 + LINGER), Interrupt::At(1000 + 2 * LINGER));
        assert_eq!(pacing.interrupt(1, 1003 + LINGER), Interrupt::Now, "many");
    }

    #[test]
    fn runs_for_an_interrupt_are_no_pause() {
        let mut pacing = Pacing::default();
        let sent = [ONE, Sent::default(), ONE, Sent::default(), ONE, ONE, Sent::default(), ONE];
        assert_eq!(runs(&mut pacing, 10 * APART, &sent), [false, false, false, false, false, false, false, true]);
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
