//! The storm device: raises lines and messages as fast as it is told to. For tests; there only with the test agent or
//! `--testdev`.
//!
//! One page of memory at [`BASE`]. Registers are 32 or 64 bits wide and are accessed whole; a 64-bit one also as two halves of 32
//! bits. [`CHANNELS`] channels have [`CHANNEL_BYTES`] each from [`CHANNEL_0`]; each raises one line or message.
//!
//! | register | bits | read | write |
//! |---|---|---|---|
//! | [`SIGNATURE`] | 32 | [`SIGNATURE_VALUE`] | ignored |
//! | [`COUNT_OF_CHANNELS`] | 32 | [`CHANNELS`] | ignored |
//! | [`RING`] | 32 | 0 | raises one event on each channel that runs, whatever its period |
//! | channel [`CONTROL`] | 32 | as written, bit 0 cleared when all events are sent | bit 0: run; bits 2:1: a [`Source`]. A write that sets bit 0 starts the period anew |
//! | channel [`GSI`] | 32 | as written | the line, for [`Source::Pulse`] and [`Source::Level`] |
//! | channel [`ADDRESS`] | 64 | as written | the message's address, for [`Source::Msi`] |
//! | channel [`DATA`] | 32 | as written | its data |
//! | channel [`PERIOD`] | 64 | as written | ns from one event to the next; 0: only when rung |
//! | channel [`LEFT`] | 64 | events left | events to raise; [`NO_END`]: does not count |
//! | channel [`SENT`] | 64 | events raised since it was written | anything: 0 |
//! | channel [`MERGED`] | 64 | those of them that found the level still up | anything: 0 |
//! | channel [`SKIPPED`] | 64 | events that were not raised, because the device was too late by more than [`BATCH`] | anything: 0 |
//! | channel [`ACKNOWLEDGE`] | 32 | the level of [`Source::Level`] | anything: lowers it |
//!
//! Changes of a channel's registers other than its counts take effect when it is started; a write to [`CONTROL`] without bit 0
//! stops it and lowers its line.

/// Physical address of the registers.
pub const BASE: u64 = 0xff10_0000;
/// Bytes of them.
pub const WINDOW: u64 = 0x1000;

/// Register: says that the device is there.
pub const SIGNATURE: u64 = 0x00;
/// "TpSt".
pub const SIGNATURE_VALUE: u32 = 0x7453_7054;
/// Register: how many channels there are.
pub const COUNT_OF_CHANNELS: u64 = 0x04;
/// Register: raises an event on each running channel.
pub const RING: u64 = 0x08;

/// How many channels there are.
pub const CHANNELS: usize = 8;
/// Where the first channel's registers are.
pub const CHANNEL_0: u64 = 0x100;
/// From one channel's registers to the next one's.
pub const CHANNEL_BYTES: u64 = 0x80;

/// Register of a channel: whether it runs, and what it raises.
pub const CONTROL: u64 = 0x00;
/// Bit of [`CONTROL`]: it runs.
pub const CONTROL_RUN: u32 = 1;
/// Where the [`Source`] is in [`CONTROL`].
pub const CONTROL_SOURCE_SHIFT: u32 = 1;
/// Register of a channel: the line.
pub const GSI: u64 = 0x04;
/// Register of a channel: the message's address.
pub const ADDRESS: u64 = 0x08;
/// Register of a channel: the message's data.
pub const DATA: u64 = 0x10;
/// Register of a channel: lowers the line.
pub const ACKNOWLEDGE: u64 = 0x14;
/// Register of a channel: the time between events.
pub const PERIOD: u64 = 0x18;
/// Register of a channel: how many more events.
pub const LEFT: u64 = 0x20;
/// Register of a channel: events raised.
pub const SENT: u64 = 0x28;
/// Register of a channel: events that merged into a level.
pub const MERGED: u64 = 0x30;
/// Register of a channel: events not raised.
pub const SKIPPED: u64 = 0x38;

/// In [`LEFT`]: the channel runs until it is stopped.
pub const NO_END: u64 = u64::MAX;
/// Events of one channel that are raised in one go; what is late by more is skipped.
pub const BATCH: u64 = 64;

/// What a channel raises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Source {
    /// The line goes up and down.
    Pulse = 0,
    /// The line goes up, and down when it is acknowledged.
    Level = 1,
    /// A message.
    Msi = 2,
}

impl Source {
    /// That of a value of [`CONTROL`]; `None` for the one that is not in use.
    pub const fn of_control(control: u32) -> Option<Self> {
        match control >> CONTROL_SOURCE_SHIFT & 3 {
            0 => Some(Self::Pulse),
            1 => Some(Self::Level),
            2 => Some(Self::Msi),
            _ => None,
        }
    }

    /// The value of [`CONTROL`] that starts a channel with this source.
    pub const fn start(self) -> u32 {
        (self as u32) << CONTROL_SOURCE_SHIFT | CONTROL_RUN
    }
}

/// The address of register `register` of channel `channel`.
pub const fn channel(channel: usize, register: u64) -> u64 {
    BASE + CHANNEL_0 + channel as u64 * CHANNEL_BYTES + register
}
