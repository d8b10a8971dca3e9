//! The storm device's driver ([`x86::storm`]): raises lines and messages at a set rate, from outside of all CPUs.
//!
//! Each channel has one owner, who has [`Channel::claim`]ed it. Its registers are read and written whole, so counts that the device
//! changes meanwhile are never torn.

use core::sync::atomic::{AtomicU32, Ordering};

use x86::storm::{
    ACKNOWLEDGE, ADDRESS, BASE, CHANNELS, CONTROL, CONTROL_RUN, DATA, GSI, LEFT, MERGED, PERIOD, RING, SENT, SIGNATURE,
    SIGNATURE_VALUE, SKIPPED, WINDOW, channel,
};
pub use x86::storm::{NO_END, Source};

/// Channels in use, a bit each.
static IN_USE: AtomicU32 = AtomicU32::new(0);

/// There is such a device.
pub fn is_present() -> bool {
    read::<u32>(BASE + SIGNATURE) == SIGNATURE_VALUE
}

/// Raises one event on each channel that runs, whatever its period.
pub fn ring() {
    write(BASE + RING, 1u32);
}

/// What a channel has done since it was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Events raised.
    pub sent: u64,
    /// Those of them that found the level still up.
    pub merged: u64,
    /// Events left out, because the device was too late.
    pub skipped: u64,
}

/// A channel; stopped and given back when dropped.
pub struct Channel(usize);

impl Channel {
    /// A channel that nobody has; `None` if there is none, or no device.
    pub fn claim() -> Option<Self> {
        if !is_present() {
            return None;
        }
        let free = |used: u32| Some(used | 1 << (!used).trailing_zeros()).filter(|&now| now < 1 << CHANNELS);
        let used = IN_USE.fetch_update(Ordering::AcqRel, Ordering::Relaxed, free).ok()?;
        Some(Self((!used).trailing_zeros() as usize))
    }

    /// Its number, for handlers.
    pub fn number(&self) -> usize {
        self.0
    }

    /// From its next start on it raises this line.
    pub fn aim_line(&self, gsi: u32) {
        self.write(GSI, gsi);
    }

    /// From its next start on it sends this message.
    pub fn aim_message(&self, (address, data): (u32, u32)) {
        self.write(ADDRESS, u64::from(address));
        self.write(DATA, data);
    }

    /// Prepares a start: all counts 0, so many events to come ([`x86::storm::NO_END`]: no end), so many nanoseconds apart (0: only when
    /// rung).
    pub fn load(&self, period: u64, events: u64) {
        self.write(PERIOD, period);
        [SENT, MERGED, SKIPPED].into_iter().for_each(|count| self.write(count, 0u64));
        self.reload(events);
    }

    /// So many events more, all else as it is.
    pub fn reload(&self, events: u64) {
        self.write(LEFT, events);
    }

    /// Starts it.
    pub fn start(&self, source: Source) {
        self.write(CONTROL, source.start());
    }

    /// Stops it, which lowers its line.
    pub fn stop(&self) {
        self.write(CONTROL, 0u32);
    }

    /// Some of its events are still to come.
    pub fn is_running(&self) -> bool {
        self.read::<u32>(CONTROL) & CONTROL_RUN != 0
    }

    /// Its counts; of one moment only when it does not run.
    pub fn counts(&self) -> Counts {
        Counts { sent: self.read(SENT), merged: self.read(MERGED), skipped: self.read(SKIPPED) }
    }

    fn read<T: Word>(&self, register: u64) -> T {
        read(channel(self.0, register))
    }

    fn write<T: Word>(&self, register: u64, value: T) {
        write(channel(self.0, register), value);
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.stop();
        IN_USE.fetch_and(!(1 << self.0), Ordering::AcqRel);
    }
}

/// For handlers: lowers the line of the channel of this number.
pub fn acknowledge(number: usize) {
    write(channel(number, ACKNOWLEDGE), 1u32);
}

/// For handlers: events that the channel of this number has raised.
pub fn sent(number: usize) -> u64 {
    read(channel(number, SENT))
}

/// What a register is.
trait Word: Copy {}
impl Word for u32 {}
impl Word for u64 {}

fn read<T: Word>(address: u64) -> T {
    assert!((BASE..=BASE + WINDOW - size_of::<T>() as u64).contains(&address), "no register of the storm device");
    // SAFETY: the device's page is mapped one to one, uncached, and every value is an integer; where there is no device all bits
    // are ones. Reading has no effect.
    unsafe { core::ptr::read_volatile(address as *const T) }
}

fn write<T: Word>(address: u64, value: T) {
    assert!((BASE..=BASE + WINDOW - size_of::<T>() as u64).contains(&address), "no register of the storm device");
    // SAFETY: as above; what changes is which interrupts come.
    unsafe { core::ptr::write_volatile(address as *mut T, value) };
}
