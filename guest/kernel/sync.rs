//! Locks that interrupt handlers may take too.
//!
//! A lock that both a handler and the code it interrupts take must be held with interrupts off on this CPU, or the handler waits
//! for what it interrupted. [`IrqLock`] does that; it does not help against NMIs, whose handlers take no locks at all.
//!
//! To read more: Linux, Documentation/locking/locktypes.rst, "spinlock_t and rwlock_t" (spin_lock_irqsave).

use core::ops::{Deref, DerefMut};

use spin::{Mutex, MutexGuard};
use x86_64::instructions::interrupts;

/// Runs `f` with interrupts off, and puts IF back as it was.
pub fn without_interrupts<R>(f: impl FnOnce() -> R) -> R {
    let _guard = IrqGuard::new();
    f()
}

/// Interrupts are off while this lives; afterwards IF is as it was before.
pub struct IrqGuard {
    were_on: bool,
}

impl IrqGuard {
    /// Turns interrupts off.
    pub fn new() -> Self {
        let were_on = interrupts::are_enabled();
        if were_on {
            interrupts::disable();
        }
        Self { were_on }
    }
}

impl Default for IrqGuard {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for IrqGuard {
    fn drop(&mut self) {
        if self.were_on {
            interrupts::enable();
        }
    }
}

/// A spin lock that is held with interrupts off.
pub struct IrqLock<T>(Mutex<T>);

/// Holds an [`IrqLock`]. The lock is dropped first, then IF is put back.
pub struct IrqLockGuard<'a, T> {
    data: MutexGuard<'a, T>,
    _irq: IrqGuard,
}

impl<T> IrqLock<T> {
    /// A free lock.
    pub const fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    /// Takes it, spinning.
    pub fn lock(&self) -> IrqLockGuard<'_, T> {
        let irq = IrqGuard::new();
        IrqLockGuard { data: self.0.lock(), _irq: irq }
    }

    /// Takes it if it is free.
    pub fn try_lock(&self) -> Option<IrqLockGuard<'_, T>> {
        let irq = IrqGuard::new();
        Some(IrqLockGuard { data: self.0.try_lock()?, _irq: irq })
    }
}

impl<T> Deref for IrqLockGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.data
    }
}

impl<T> DerefMut for IrqLockGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.data
    }
}

/// Interrupts are on.
pub fn interrupts_are_on() -> bool {
    interrupts::are_enabled()
}

/// Turns interrupts on.
pub fn enable_interrupts() {
    interrupts::enable();
}

/// Turns interrupts off.
pub fn disable_interrupts() {
    interrupts::disable();
}

/// Turns interrupts on and sleeps until one comes; nothing can come in between.
pub fn enable_and_halt() {
    interrupts::enable_and_hlt();
}
