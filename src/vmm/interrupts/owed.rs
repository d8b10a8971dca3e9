//! Kicks that are owed while a device's or a wire's lock is held, and sent when it no longer is.
//!
//! A device raises its line from inside its lock, so the vCPU that gets the interrupt must not be woken there: it would
//! run into that very lock, and a system call would be made under it. Whoever is about to take such a lock from outside
//! (a vCPU with an exit, the main loop with an event, a bottom half with a device's work) first calls
//! [`Processors::hold_kicks`]. What is posted on its thread from then on is kicked when the guard is dropped, after the
//! lock. Several posts to one vCPU become one kick. Without a guard on the thread, kicks go out at once: forgetting the
//! guard costs time under a lock, never a kick.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::sync::Arc;

use irqchip::bus::Kicks;

use super::Processors;

#[cfg(test)]
mod tests;

thread_local! {
    /// What is held on this thread, and for which machine.
    static HELD: RefCell<Option<(usize, Kicks)>> = const { RefCell::new(None) };
}

/// While this lives, kicks that the calling thread owes wait. They are sent when it is dropped.
#[must_use = "dropping it sends the kicks"]
pub struct HeldKicks {
    processors: Arc<Processors>,
    /// There was one on this thread before: that one sends them.
    inner: bool,
    _stay_on_thread: PhantomData<*const ()>,
}

impl Processors {
    /// Holds kicks back on the calling thread. Guards may nest; the outermost counts.
    pub fn hold_kicks(self: &Arc<Self>) -> HeldKicks {
        let inner = HELD.with_borrow_mut(|held| {
            let inner = held.is_some();
            held.get_or_insert_with(|| (self.key(), Kicks::new()));
            inner
        });
        HeldKicks { processors: Arc::clone(self), inner, _stay_on_thread: PhantomData }
    }

    /// Keeps `kicks` for the guard on this thread; gives them back if there is none, or one of another machine.
    pub(super) fn hold(&self, kicks: Kicks) -> Option<Kicks> {
        HELD.with_borrow_mut(|held| match held {
            Some((key, owed)) if *key == self.key() => {
                owed.append(&kicks);
                None
            }
            _ => Some(kicks),
        })
    }

    /// Tells machines apart, as long as they live.
    fn key(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}

impl Drop for HeldKicks {
    fn drop(&mut self) {
        if !self.inner
            && let Some((_, kicks)) = HELD.with_borrow_mut(Option::take)
        {
            self.processors.kick(kicks);
        }
    }
}
