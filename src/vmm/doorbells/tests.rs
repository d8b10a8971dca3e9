//! Doorbells, rung by the test in place of KVM. `tests/tiny_guests` has a guest that rings.

use std::sync::atomic::{AtomicU32, Ordering};

use bottom_half::{Config, CpuOwner, System, ThreadPort};

use super::*;

const AT: u64 = 0xfebf_0000;

/// `None` where there is no KVM.
fn setup() -> Option<(Arc<GuestDoorbells>, System, CpuOwner)> {
    let kvm = kvm::Kvm::open().ok()?;
    let doorbells = GuestDoorbells::new(Some(kvm.create_vm().expect("a machine"))).expect("an epoll");
    let (system, mut owners) = System::new(Config::default(), vec![Arc::new(ThreadPort::default())]).expect("threads");
    Some((doorbells, system, owners.pop().expect("a CPU")))
}

fn counting() -> (Ring, Arc<AtomicU32>) {
    let rings = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&rings);
    (Box::new(move |_top| _ = count.fetch_add(1, Ordering::AcqRel)), rings)
}

#[test]
fn writes_merge_into_one_ring_and_ring_their_own_bell() {
    let Some((doorbells, system, owner)) = setup() else { return };
    let (first, second) = (counting(), counting());
    let connections = [
        doorbells.connect(AT, Written::U16(0), first.0).expect("connected"),
        doorbells.connect(AT, Written::U16(1), second.0).expect("connected"),
    ];
    owner.top_half(|top| doorbells.serve(top));
    let written = |number: usize| doorbells.0.bells.lock()[number].clone().expect("a bell").written();
    written(1).expect("an eventfd");
    written(1).expect("an eventfd");
    owner.top_half(|top| doorbells.serve(top));
    owner.top_half(|top| doorbells.serve(top));
    assert_eq!((first.1.load(Ordering::Acquire), second.1.load(Ordering::Acquire)), (0, 1));
    drop(connections);
    system.shutdown(None).expect("nothing is stuck");
}

#[test]
fn a_dropped_connection_rings_no_more_and_makes_room() {
    let Some((doorbells, system, owner)) = setup() else { return };
    let (ring, rings) = counting();
    let connection = doorbells.connect(AT, Written::Anything, ring).expect("connected");
    let bell = doorbells.0.bells.lock()[0].clone().expect("a bell");
    bell.written().expect("an eventfd");
    drop(connection);
    owner.top_half(|top| doorbells.serve(top));
    assert_eq!(rings.load(Ordering::Acquire), 0);
    drop(bell);
    assert_eq!(Arc::strong_count(&rings), 1, "its ring is gone");
    let again = doorbells.connect(AT, Written::Anything, counting().0);
    assert!(again.is_some() && doorbells.0.bells.lock().len() == 1);
    system.shutdown(None).expect("nothing is stuck");
}

/// The device goes on without: its writes are exits.
#[test]
fn what_the_host_refuses_leaves_nothing_behind() {
    let Some((doorbells, system, _owner)) = setup() else { return };
    let first = doorbells.connect(AT, Written::U32(7), counting().0);
    assert!(first.is_some());
    let (ring, rings) = counting();
    assert!(doorbells.connect(AT, Written::U32(7), ring).is_none(), "that one is taken");
    assert_eq!(Arc::strong_count(&rings), 1);
    assert_eq!(doorbells.0.bells.lock().iter().flatten().count(), 1);
    system.shutdown(None).expect("nothing is stuck");
}

impl Bell {
    /// As if the guest had written.
    fn written(&self) -> io::Result<()> {
        match &self.event {
            Event::Guest(event) => event.write(1),
            Event::Host => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

/// A descriptor rings each time it has become readable, as long as it is watched.
#[test]
fn a_descriptor_of_the_host_rings_when_it_becomes_readable() {
    let Some((doorbells, system, owner)) = setup() else { return };
    let event = EventFd::new(EFD_NONBLOCK).expect("an eventfd");
    let (ring, rings) = counting();
    let watch = doorbells.watch(event.as_raw_fd(), ring);
    let watch = watch.expect("it can be watched");
    let serve = || owner.top_half(|top| doorbells.serve(top));
    serve();
    assert_eq!(rings.load(Ordering::Acquire), 0);
    event.write(1).expect("an eventfd");
    serve();
    serve();
    assert_eq!(rings.load(Ordering::Acquire), 1, "once for each time");
    event.write(1).expect("an eventfd");
    serve();
    assert_eq!(rings.load(Ordering::Acquire), 2);
    drop(watch);
    event.write(1).expect("an eventfd");
    serve();
    assert_eq!(rings.load(Ordering::Acquire), 2);
    system.shutdown(None).expect("nothing runs");
}
