//! What devices ask of the machine, and what the machine asks of devices.

use sys::terminal::Size;
use x86::Nanos;

/// A device that answers port or memory accesses.
///
/// Called with the device's lock held, on a vCPU's thread: must not block. `data` is 1 to 8 bytes of any size;
/// `offset` counts from the start of the range the device was put on the bus with.
pub trait BusDevice: Send {
    /// A read; fills all of `data`. What hardware would not drive reads as all ones.
    fn read(&mut self, now: Nanos, offset: u64, data: &mut [u8]);
    /// A write.
    fn write(&mut self, now: Nanos, offset: u64, data: &[u8]);
}

/// A device with deadlines, called from the main loop with its lock held.
pub trait TimedDevice: Send {
    /// The time has come (or nearly: the device checks what is due at `now`, and arms its next deadline).
    fn expire(&mut self, now: Nanos);
}

/// Arms a device's next call of [`TimedDevice::expire`].
///
/// Called with the device's lock held, from any thread: must neither block nor take the lock of a device. A device says
/// what it wants only when that changes.
pub trait Alarm: Send + Sync {
    /// Asks for a call at `at`, replacing what was asked before; `None` for no call.
    fn arm(&self, at: Option<Nanos>);
}

/// Asks the main loop to run a device's slow part soon. Asking again before it ran is merged.
///
/// Called with the device's lock held, from any thread: must neither block nor take the lock of a device.
pub trait Later: Send + Sync {
    /// Schedules the run.
    fn schedule(&self);
}

/// A guest's port as the host's end of it sees it, with the device's lock held. There is one such end: it copies output under the
/// lock, writes it without, and then says how much is written.
pub trait ConsoleEnd {
    /// Gives the guest as much of `bytes` as it takes now, and says how much; the rest stays with the caller, who is asked
    /// to look again when there is room.
    fn push_input(&mut self, bytes: &[u8]) -> usize;
    /// Copies the oldest bytes that the guest has sent, up to the size of `data`; says how many.
    fn peek_output(&mut self, data: &mut [u8]) -> usize;
    /// Forgets the `count` oldest bytes: they are written.
    fn consume_output(&mut self, count: usize);
    /// How many bytes are known to have been sent and not consumed; 0 only if there are none.
    fn output_len(&mut self) -> usize;
    /// What the port is connected to has this size from now on. Nothing for a port that has none to tell the guest.
    fn resize(&mut self, _size: Size) {}
}

/// What a guest can ask of the machine as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MachineEvent {
    /// Soft off (ACPI S5).
    PowerOff,
    /// Reset (i8042, port 92, reset control register).
    Reset,
    /// The guest has panicked and waits for what the host makes of it.
    Panicked,
    /// The guest has panicked and goes on in its crash kernel: nothing to do, but worth a note.
    CrashLoaded,
    /// The debug exit port was written this value.
    DebugExit(u8),
    /// The guest has not fed its watchdog.
    WatchdogExpired,
    /// The command of `--exec` has ended with this status.
    CommandEnded(u8),
}

/// Takes a guest's request; the first one wins.
///
/// Called with the device's lock held, on a vCPU's thread: must neither block nor take the lock of a device.
pub trait MachineControl: Send + Sync {
    /// Requests `event`; returns at once, the vCPU that asked may run on for a moment.
    fn request(&self, event: MachineEvent);
}
