//! What devices ask of the machine, and what the machine asks of devices.

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

/// What a guest can ask of the machine as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MachineEvent {
    /// Soft off (ACPI S5).
    PowerOff,
    /// Reset (i8042, reset control register).
    Reset,
    /// The debug exit port was written this value.
    DebugExit(u8),
}

/// Takes a guest's request; the first one wins.
///
/// Called with the device's lock held, on a vCPU's thread: must neither block nor take the lock of a device.
pub trait MachineControl: Send + Sync {
    /// Requests `event`; returns at once, the vCPU that asked may run on for a moment.
    fn request(&self, event: MachineEvent);
}
