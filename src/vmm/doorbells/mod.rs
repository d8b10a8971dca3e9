//! Doorbells by KVM's ioeventfd: each an eventfd, all behind one epoll descriptor, which the main loop watches. Behind it are
//! also the descriptors of the host that devices wait for.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use bottom_half::TopHalf;
use devices::doorbell::{Connection, Doorbells, Ring, Written};
use kvm::{Match, Vm};
use parking_lot::Mutex;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

#[cfg(test)]
mod tests;

/// Served in one turn of the main loop.
const TURN: usize = 16;

/// All doorbells of a machine.
pub struct GuestDoorbells(Arc<Inner>);

struct Inner {
    /// `None` without KVM: the guest's writes are all exits.
    vm: Option<Vm>,
    epoll: Epoll,
    /// Leaf lock.
    bells: Mutex<Vec<Option<Arc<Bell>>>>,
}

struct Bell {
    event: Event,
    ring: Ring,
}

/// What makes it ring.
enum Event {
    /// A write of the guest.
    Guest(Arc<EventFd>),
    /// A descriptor of the host's that has become readable, which whoever watches it reads.
    Host,
}

impl GuestDoorbells {
    /// None yet, in `vm`; without one the guest's writes are all exits. Fails if the host gives no epoll descriptor.
    pub fn new(vm: Option<Vm>) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self(Arc::new(Inner { vm, epoll: Epoll::new()?, bells: Mutex::default() }))))
    }

    /// Rings those that have been written to: in a top half of the main loop.
    pub fn serve(&self, top: &TopHalf<'_>) {
        let mut events = [EpollEvent::default(); TURN];
        let count = match self.0.epoll.wait(0, &mut events) {
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return,
            Err(e) => return log::error!("doorbells can't be looked at: {e}"),
        };
        for event in &events[..count] {
            let bell = self.0.bells.lock().get(event.data() as usize).cloned().flatten();
            // Read first: a write after this rings again. Nothing to read: another bell had the number before.
            if let Some(bell) = bell
                && bell.event.is_there()
            {
                (bell.ring)(top);
            }
        }
    }
}

impl GuestDoorbells {
    /// Rings whenever `fd`, which stays open meanwhile, has become readable anew, until the watch is dropped.
    pub fn watch(&self, fd: RawFd, ring: Ring) -> io::Result<Watch> {
        let number = self.0.add(Arc::new(Bell { event: Event::Host, ring }));
        // From here on, dropping it undoes all.
        let watch = Watch { doorbells: Arc::clone(&self.0), number, fd };
        let event = EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, number as u64);
        self.0.epoll.ctl(ControlOperation::Add, fd, event)?;
        Ok(watch)
    }
}

impl Event {
    /// Takes it; false if another bell had the number before, and it is not this one's.
    fn is_there(&self) -> bool {
        match self {
            Self::Guest(event) => event.read().is_ok(),
            // One too many does no harm.
            Self::Host => true,
        }
    }
}

impl Inner {
    /// Gives `bell` a number.
    fn add(&self, bell: Arc<Bell>) -> usize {
        let mut bells = self.bells.lock();
        let number = bells.iter().position(Option::is_none).unwrap_or(bells.len());
        if number == bells.len() {
            bells.push(None);
        }
        bells[number] = Some(bell);
        number
    }

    fn remove(&self, number: usize) {
        let gone = self.bells.lock()[number].take();
        // Outside the lock: what its ring owned may have doorbells, too.
        drop(gone);
    }
}

/// A descriptor that is watched.
pub struct Watch {
    doorbells: Arc<Inner>,
    number: usize,
    fd: RawFd,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.doorbells.epoll.ctl(ControlOperation::Delete, self.fd, EpollEvent::default());
        self.doorbells.remove(self.number);
    }
}

impl AsRawFd for GuestDoorbells {
    fn as_raw_fd(&self) -> RawFd {
        self.0.epoll.as_raw_fd()
    }
}

impl Doorbells for GuestDoorbells {
    fn connect(&self, address: u64, written: Written, ring: Ring) -> Option<Box<dyn Connection>> {
        let vm = self.0.vm.clone()?;
        match Connected::new(&self.0, vm, address, matching(written), ring) {
            Ok(connected) => Some(Box::new(connected)),
            Err(e) => {
                log::debug!("no doorbell at {address:#x}, its writes are exits: {e}");
                None
            }
        }
    }
}

struct Connected {
    doorbells: Arc<Inner>,
    vm: Vm,
    event: Arc<EventFd>,
    number: usize,
    address: u64,
    matching: Match,
}

impl Connected {
    fn new(doorbells: &Arc<Inner>, vm: Vm, address: u64, matching: Match, ring: Ring) -> io::Result<Self> {
        let event = Arc::new(EventFd::new(EFD_NONBLOCK)?);
        let number = doorbells.add(Arc::new(Bell { event: Event::Guest(Arc::clone(&event)), ring }));
        // From here on, dropping it undoes all; what was not done can't be undone, which does no harm.
        let connected = Self { doorbells: Arc::clone(doorbells), vm, event, number, address, matching };
        let events = EpollEvent::new(EventSet::IN, number as u64);
        doorbells.epoll.ctl(ControlOperation::Add, connected.event.as_raw_fd(), events)?;
        connected.vm.connect_event(address, matching, &connected.event).map_err(io::Error::other)?;
        Ok(connected)
    }
}

impl Connection for Connected {}

impl Drop for Connected {
    fn drop(&mut self) {
        let _ = self.vm.disconnect_event(self.address, self.matching, &self.event);
        let fd = self.event.as_raw_fd();
        let _ = self.doorbells.epoll.ctl(ControlOperation::Delete, fd, EpollEvent::default());
        self.doorbells.remove(self.number);
    }
}

fn matching(written: Written) -> Match {
    match written {
        Written::Anything => Match::Any,
        Written::U16(value) => Match::U16(value),
        Written::U32(value) => Match::U32(value),
    }
}
