use sys::calls::Calls;

use super::*;

const ADDRESS: u64 = 0xfee0_0000;

/// A machine with KVM's chips, and without a line; `None` where there is no such KVM.
fn setup() -> Option<Arc<Irqfds>> {
    let kvm = kvm::Kvm::open().ok().filter(|kvm| kvm.check_irqchip().is_ok())?;
    let vm = kvm.create_vm().expect("a machine");
    vm.create_irqchip().expect("its chips");
    Some(Irqfds::new(&vm, Vec::new(), Trace::default()))
}

fn counted() -> Arc<Calls> {
    let calls = Arc::new(Calls::default());
    calls::count_in(Arc::clone(&calls));
    calls
}

/// What KVM has not taken of an eventfd: nothing, if it is connected.
fn left(vector: &Irqfd) -> Option<u64> {
    vector.event.read().ok()
}

/// Red when: a signal is an ioctl, or a route is set though it is the same.
#[test]
fn a_route_costs_an_ioctl_when_it_changes_and_a_message_none() {
    let Some(irqfds) = setup() else { return };
    let calls = counted();
    let count = || (calls.get(Call::VmIoctl), calls.get(Call::Event));
    let mut vector = irqfds.vector().expect("an irqfd");
    assert_eq!(count(), (1, 0), "connected");
    assert!(!vector.signal(), "it has no route");
    assert!(vector.route(ADDRESS, 0x40) && vector.route(ADDRESS, 0x40));
    assert_eq!(count(), (2, 0));
    for _ in 0..100 {
        assert!(vector.signal());
    }
    assert_eq!((count(), left(&vector)), ((2, 100), None), "KVM has taken all");
    assert!(vector.route(ADDRESS, 0x41) && vector.signal());
    assert_eq!(count(), (3, 101));
    drop(vector);
    assert_eq!(count(), (4, 101), "disconnected");
}

#[test]
fn what_is_no_message_has_no_route() {
    let Some(irqfds) = setup() else { return };
    let mut vector = irqfds.vector().expect("an irqfd");
    assert!(vector.route(ADDRESS, 0x40));
    for (address, data) in [(0x1000, 0x40), (ADDRESS | 1 << 40, 0x40), (ADDRESS, 3 << 8)] {
        assert!(!vector.route(address, data) && !vector.signal(), "{address:#x} {data:#x}");
    }
    assert!(vector.route(ADDRESS, 0x40) && vector.signal());
}

#[test]
fn vectors_have_places_of_their_own_and_leave_them() {
    let Some(irqfds) = setup() else { return };
    let mut vectors: Vec<_> = (0..3).map(|_| irqfds.vector().expect("an irqfd")).collect();
    for (vector, data) in vectors.iter_mut().zip(0x40..) {
        assert!(vector.route(ADDRESS, data));
    }
    let encoded = |data| Slot::Taken(Some(encode(&Message::from_msi(ADDRESS, data).expect("a message"))));
    assert_eq!(*irqfds.slots.lock(), [encoded(0x40), encoded(0x41), encoded(0x42)]);
    drop(vectors.remove(1));
    assert_eq!(*irqfds.slots.lock(), [encoded(0x40), Slot::Free, encoded(0x42)]);
    let again = irqfds.vector().expect("an irqfd");
    assert_eq!((again.slot, irqfds.slots.lock().len()), (1, 3));
    assert!(!again.signal(), "it has none of the one before");
}

/// A KVM without chips takes neither: messages go the other way.
#[test]
fn a_kvm_that_refuses_leaves_no_trace() {
    let Ok(kvm) = kvm::Kvm::open() else { return };
    let irqfds = Irqfds::new(&kvm.create_vm().expect("a machine"), Vec::new(), Trace::default());
    assert!(irqfds.vector().is_none());
    assert_eq!(*irqfds.slots.lock(), [Slot::Free]);
    // The same for a table that is refused: what KVM has is what counts.
    irqfds.slots.lock()[0] = Slot::Taken(None);
    assert!(irqfds.route(0, Some(Msi { address: ADDRESS, data: 0x40 })).is_err());
    assert_eq!(*irqfds.slots.lock(), [Slot::Taken(None)]);
}
