//! C8, C9 and C11: order and priority over all classes of vectors, at one level and nested.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use kernel::arch::frame::Frame;
use kernel::chips::apic;
use kernel::probe;
use kernel::random::Random;
use kernel::sync::{disable_interrupts, enable_interrupts, without_interrupts};
use kernel::testing::TestResult;
use kernel::{check, check_eq, test, wait};
use x86::apic::reg;

use crate::apic::with_vectors;

test!("order.pairs_of_all_classes", [11], pairs);
test!("order.triples_nest_by_priority", [8, 11], triples);
test!("order.task_priority_lets_classes_in_one_by_one", [11], task_priority);
test!("order.cr8_lets_classes_in_one_by_one", [11], cr8);
test!("order.raised_task_priority_in_a_handler_holds_back", [8, 11], raised_in_handler);

/// A vector of each class that devices can have.
const VECTORS: [u8; 11] = [0x31, 0x4e, 0x52, 0x6d, 0x73, 0x8c, 0x94, 0xab, 0xb5, 0xca, 0xd6];

/// What began (the class) and ended (the class and bit 4), the oldest first, eight bits each; a second word for what does not fit.
static TRACE: AtomicU64 = AtomicU64::new(0);
static COUNT: AtomicU32 = AtomicU32::new(0);

fn note(what: u8) {
    TRACE.store(TRACE.load(Ordering::SeqCst) << 8 | u64::from(what), Ordering::SeqCst);
    COUNT.fetch_add(1, Ordering::SeqCst);
}

fn reset() {
    TRACE.store(0, Ordering::SeqCst);
    COUNT.store(0, Ordering::SeqCst);
}

fn count() -> u32 {
    COUNT.load(Ordering::SeqCst)
}

fn class(vector: u8) -> u8 {
    vector >> 4
}

fn noting(frame: &mut Frame) {
    note(class(frame.vector as u8));
    apic::eoi();
}

/// Requests vectors of this CPU, in this order; interrupts are off.
fn request(vectors: &[u8]) -> TestResult {
    for &vector in vectors {
        apic::send_to(apic::id(), vector);
        wait::for_condition(|| apic::requested(vector))?;
    }
    Ok(())
}

/// Whichever comes first, the higher one is taken first.
fn pairs() -> TestResult {
    with_vectors(&VECTORS, noting, || {
        for (n, &low) in VECTORS.iter().enumerate() {
            for &high in &VECTORS[n + 1..] {
                reset();
                let order = if (low ^ high) & 1 == 0 { [low, high] } else { [high, low] };
                without_interrupts(|| request(&order))?;
                wait::for_condition(|| count() == 2)?;
                let expected = u64::from(class(high)) << 8 | u64::from(class(low));
                check_eq!(TRACE.load(Ordering::SeqCst), expected, "the order of {order:x?}");
            }
        }
        Ok(())
    })
}

/// Vectors that the lowest handler of a triple raises.
static RAISED: [AtomicU32; 2] = [const { AtomicU32::new(0) }; 2];

/// Of the lowest one: raises the other two, and lets them in. The others do not let anything in.
fn nesting(frame: &mut Frame) {
    let vector = frame.vector as u8;
    note(class(vector));
    let raised = RAISED.each_ref().map(|raised| raised.load(Ordering::SeqCst) as u8);
    if !raised.contains(&vector) {
        // If they do not show up the trace says so.
        let _ = request(&raised);
        enable_interrupts();
        let _ = wait::for_condition(|| count() >= 5);
        disable_interrupts();
    }
    note(class(vector) | 0x10);
    apic::eoi();
}

/// Low, middle, high: the low handler is interrupted by the high one and then by the middle one, and ends last.
fn triples() -> TestResult {
    with_vectors(&VECTORS, nesting, || {
        let mut random = Random::from_seed(8);
        for _ in 0..20 {
            let low = random.below(9) as usize;
            let middle = low + 1 + random.below(9 - low as u64) as usize;
            let high = middle + 1 + random.below(10 - middle as u64) as usize;
            let [low, middle, high] = [low, middle, high].map(|n| VECTORS[n]);
            let raised = if random.below(2) == 0 { [middle, high] } else { [high, middle] };
            RAISED.iter().zip(raised).for_each(|(slot, vector)| slot.store(vector.into(), Ordering::SeqCst));
            reset();
            apic::send_to(apic::id(), low);
            wait::for_condition(|| count() == 6)?;
            let [l, m, h] = [low, middle, high].map(|vector| u64::from(class(vector)));
            let order = [l, h, h | 0x10, m, m | 0x10, l | 0x10];
            let expected = order.into_iter().fold(0, |trace, what| trace << 8 | what);
            check_eq!(TRACE.load(Ordering::SeqCst), expected, "the order of {low:#x}, {middle:#x}, {high:#x}");
        }
        check!(!apic::anything_in_service(), "something is still in service");
        Ok(())
    })
}

/// One request of each class, all held back; then the threshold goes down class by class, by `set`.
fn one_by_one(set: fn(u8)) -> TestResult {
    with_vectors(&VECTORS, noting, || {
        reset();
        let held = (|| {
            set(15);
            request(&VECTORS)?;
            check_eq!(count(), 0, "what came through the highest threshold");
            for (n, &vector) in VECTORS.iter().rev().enumerate() {
                // Its own class is held back, the one below lets it in.
                set(class(vector));
                check!(apic::requested(vector), "{vector:#x} came through a threshold of its class");
                set(class(vector) - 1);
                wait::for_condition(|| count() == n as u32 + 1)?;
                let came = TRACE.load(Ordering::SeqCst) as u8;
                check_eq!(came, class(vector), "what came with a threshold of {}", class(vector) - 1);
            }
            Ok(())
        })();
        set(0);
        held
    })
}

fn task_priority() -> TestResult {
    one_by_one(|class| apic::write(reg::TPR, u32::from(class) << 4))
}

fn cr8() -> TestResult {
    one_by_one(|class| probe::write_cr8(class.into()))
}

/// A handler of a low class raises the threshold above a request that its own priority would let in.
fn raised_in_handler() -> TestResult {
    const LOW: u8 = 0x31;
    const HIGH: u8 = 0x94;
    fn handler(frame: &mut Frame) {
        let vector = frame.vector as u8;
        note(class(vector));
        if vector == LOW {
            apic::write(reg::TPR, 0xa0);
            let _ = request(&[HIGH]);
            enable_interrupts();
            (0..200).for_each(|_| core::hint::spin_loop());
            disable_interrupts();
            note(class(vector) | 0x10);
            apic::write(reg::TPR, 0);
        }
        apic::eoi();
    }
    with_vectors(&[LOW, HIGH], handler, || {
        reset();
        apic::send_to(apic::id(), LOW);
        wait::for_condition(|| count() == 3)?;
        check_eq!(TRACE.load(Ordering::SeqCst), 0x03_1309, "low begins, low ends, high");
        Ok(())
    })
}
