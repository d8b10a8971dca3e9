//! C11: the local APIC's registers, priorities and timer, in the mode that the kernel runs it in (`apic=xapic` chooses the other).

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use kernel::arch::frame::Frame;
use kernel::arch::vectors;
use kernel::chips::apic;
use kernel::sync::without_interrupts;
use kernel::testing::{Failure, TestResult, not_on_qemu_tcg};
use kernel::time::{self, tsc};
use kernel::{check, check_eq, probe, test, wait};
use x86::apic::{DeliveryMode, Esr, Lvt, Shorthand, Svr, TimerMode, reg};
use x86::test_record::{Modes, Needs};

test!("apic.version_and_id", [11], version_and_id);
test!("apic.request_service_and_eoi", [11], request_service_eoi; .needs(Needs::IN_SERVICE));
test!("apic.higher_vectors_come_first", [11], higher_first);
test!("apic.one_request_of_a_vector_is_kept_beside_one_in_service", [11], two_of_a_kind);
test!("apic.tpr_holds_back_lower_classes", [11], tpr);
test!("apic.same_class_does_not_nest", [8, 11], same_class);
test!("apic.eoi_ends_the_highest_in_service", [11], eoi_order; .needs(Needs::IN_SERVICE));
test!("apic.illegal_vector_is_an_error", [11], illegal_vector;
    .known(IN_KVM, "KVM never sets the error status register (Intel SDM vol. 3A, Error Handling)"));
test!("apic.table_entries_keep_what_they_should", [11], lvt_bits;
    .known(IN_KVM, "KVM stores read-only bits of LINT0 and LINT1 (Intel SDM vol. 3A, Local Vector Table)"));
test!("apic.software_disable_masks_the_table", [11], software_disable);
test!("apic.software_disabled_takes_no_interrupt", [11], disabled_takes_none);
test!("apic.spurious_vector_has_its_low_bits", [11], svr);
test!("apic.timer_one_shot_fires_once", [11, 20], one_shot);
test!("apic.timer_one_shot_is_never_early", [11, 20], never_early);
test!("apic.timer_periodic_goes_on", [11, 20], periodic);
test!("apic.timer_masked_only_counts", [11, 20], masked_timer);
test!("apic.timer_zero_stops_it", [11, 20], zero_stops);
test!("apic.timer_divides", [11, 20], divides);
test!("apic.deadline_fires", [11, 20], deadline; .needs(Needs::TSC_DEADLINE));
test!("apic.deadline_in_the_past_fires_at_once", [11, 20], past_deadline; .needs(Needs::TSC_DEADLINE));
test!("apic.deadline_zero_disarms", [11, 20], zero_deadline; .needs(Needs::TSC_DEADLINE));
test!("apic.modes_switch_there_and_back", [11], mode_switch; .needs(Needs::X2APIC));
test!("apic.x2apic_refuses_reserved_bits", [11], reserved_bits; .needs(Needs::X2APIC)
    .known(IN_KVM, "KVM takes any EOI value (Intel SDM vol. 3A, x2APIC Register Availability)"));

/// Modes where the local APIC is KVM's.
pub const IN_KVM: Modes = Modes::SPLIT.union(Modes::KERNEL);

static COUNT: AtomicU32 = AtomicU32::new(0);
/// The last vectors that came, the latest in the low byte.
static TRACE: AtomicU64 = AtomicU64::new(0);

pub fn count() -> u32 {
    COUNT.load(Ordering::SeqCst)
}

fn trace(frame: &mut Frame) {
    let before = TRACE.load(Ordering::SeqCst);
    TRACE.store(before << 8 | (frame.vector & 0xff), Ordering::SeqCst);
    COUNT.fetch_add(1, Ordering::SeqCst);
    apic::eoi();
}

/// Claims vectors for one handler while `body` runs, with the trace empty.
pub fn with_vectors(wanted: &[u8], handler: vectors::Handler, body: impl FnOnce() -> TestResult) -> TestResult {
    COUNT.store(0, Ordering::SeqCst);
    TRACE.store(0, Ordering::SeqCst);
    let mut taken = 0;
    while taken < wanted.len() && vectors::claim(wanted[taken], handler) {
        taken += 1;
    }
    let result = match wanted.get(taken) {
        Some(vector) => Err(Failure::new(format_args!("vector {vector:#x} is taken"))),
        None => body(),
    };
    wanted[..taken].iter().for_each(|&vector| vectors::release(vector));
    result
}

pub fn send(vector: u8) {
    apic::send_to(apic::id(), vector);
}

/// Until the request can be seen: an IPI to oneself may take a moment.
fn wait_requested(vector: u8) -> TestResult {
    wait::for_condition(|| apic::requested(vector))
}

fn version_and_id() -> TestResult {
    let version = apic::read(reg::VERSION);
    check!((0x10..=0x15).contains(&(version & 0xff)), "version {version:#x} is that of no integrated APIC");
    let lvts = (version >> 16 & 0xff) + 1;
    check!((5..=7).contains(&lvts), "{lvts} entries in the local vector table");
    let leaf1 = core::arch::x86_64::__cpuid(1).ebx >> 24;
    check_eq!(apic::id() & 0xff, leaf1, "the APIC ID, and CPUID's");
    Ok(())
}

fn request_service_eoi() -> TestResult {
    fn handler(frame: &mut Frame) {
        let vector = frame.vector as u8;
        let seen = apic::in_service(vector) && !apic::requested(vector) && !apic::level_triggered(vector);
        apic::eoi();
        COUNT.store(1 + u32::from(seen && !apic::in_service(vector)), Ordering::SeqCst);
    }
    with_vectors(&[0x51], handler, || {
        let pending = without_interrupts(|| {
            send(0x51);
            wait_requested(0x51)?;
            check!(!apic::in_service(0x51), "in service with interrupts off");
            check_eq!(count(), 0, "delivered with interrupts off");
            Ok(())
        });
        pending?;
        wait::for_condition(|| count() != 0)?;
        check_eq!(count(), 2, "in the handler: in service, not requested; after its EOI neither");
        check!(!apic::requested(0x51) && !apic::anything_in_service(), "something is left");
        Ok(())
    })
}

/// Requested in an order from low to high, and mixed; delivered from the highest down.
fn higher_first() -> TestResult {
    with_vectors(&[0x41, 0x42, 0x58, 0x91, 0xe0], trace, || {
        without_interrupts(|| {
            for vector in [0x42, 0x91, 0x41, 0xe0, 0x58] {
                send(vector);
                wait_requested(vector)?;
            }
            Ok(())
        })?;
        wait::for_condition(|| count() == 5)?;
        check_eq!(TRACE.load(Ordering::SeqCst), 0xe0_9158_4241, "the order");
        Ok(())
    })
}

/// IRR and ISR have one bit each: of three that come while the first is in service, one is kept.
fn two_of_a_kind() -> TestResult {
    fn handler(frame: &mut Frame) {
        if COUNT.fetch_add(1, Ordering::SeqCst) == 0 {
            for _ in 0..3 {
                send(frame.vector as u8);
            }
            // Seen before the EOI, so that no late one makes a third.
            for _ in 0..10_000 {
                if apic::requested(frame.vector as u8) {
                    break;
                }
            }
        }
        apic::eoi();
    }
    with_vectors(&[0x52, 0x41], handler, || {
        send(0x52);
        wait::for_condition(|| count() >= 2)?;
        // Whatever else is requested comes before this.
        send(0x41);
        wait::for_condition(|| count() >= 3)?;
        check_eq!(count(), 3, "deliveries");
        Ok(())
    })
}

fn tpr() -> TestResult {
    with_vectors(&[0x45, 0x4f, 0x51], trace, || {
        apic::write(reg::TPR, 0x40);
        let held = (|| {
            send(0x45);
            send(0x4f);
            wait_requested(0x45)?;
            wait_requested(0x4f)?;
            send(0x51);
            wait::for_condition(|| count() == 1)?;
            check_eq!(TRACE.load(Ordering::SeqCst), 0x51, "what came through");
            check!(apic::requested(0x45) && apic::requested(0x4f), "what was held back is gone");
            Ok(())
        })();
        apic::write(reg::TPR, 0);
        held?;
        wait::for_condition(|| count() == 3)?;
        check_eq!(TRACE.load(Ordering::SeqCst), 0x51_4f45, "the order");
        Ok(())
    })
}

/// A higher vector of the same class waits for the EOI, one of a higher class does not.
fn same_class() -> TestResult {
    fn handler(frame: &mut Frame) {
        if frame.vector == 0x71 {
            send(0x7e);
            send(0x81);
            kernel::sync::enable_interrupts();
            for _ in 0..10_000 {
                if TRACE.load(Ordering::SeqCst) != 0 && apic::requested(0x7e) {
                    break;
                }
                core::hint::spin_loop();
            }
            kernel::sync::disable_interrupts();
        }
        trace(frame);
    }
    with_vectors(&[0x71, 0x7e, 0x81], handler, || {
        send(0x71);
        wait::for_condition(|| count() == 3)?;
        check_eq!(TRACE.load(Ordering::SeqCst), 0x81_717e, "the order of ends");
        Ok(())
    })
}

fn eoi_order() -> TestResult {
    static STATES: AtomicU32 = AtomicU32::new(0);
    fn handler(frame: &mut Frame) {
        if frame.vector == 0x55 {
            send(0x85);
            kernel::sync::enable_interrupts();
            for _ in 0..10_000 {
                if count() > 0 {
                    break;
                }
                core::hint::spin_loop();
            }
            kernel::sync::disable_interrupts();
            apic::eoi();
        } else {
            let both = apic::in_service(0x55) && apic::in_service(0x85);
            apic::eoi();
            let lower = apic::in_service(0x55) && !apic::in_service(0x85);
            STATES.store(u32::from(both && lower), Ordering::SeqCst);
        }
        COUNT.fetch_add(1, Ordering::SeqCst);
    }
    with_vectors(&[0x55, 0x85], handler, || {
        STATES.store(0, Ordering::SeqCst);
        send(0x55);
        wait::for_condition(|| count() == 2)?;
        check_eq!(STATES.load(Ordering::SeqCst), 1, "both in service, then only the lower");
        check!(!apic::anything_in_service(), "something is still in service");
        Ok(())
    })
}

fn illegal_vector() -> TestResult {
    not_on_qemu_tcg("it delivers illegal vectors")?;
    with_vectors(&[], trace, || {
        let old = vectors::set_handler(vectors::APIC_ERROR, Some(trace));
        let result = without_interrupts(|| {
            apic::errors();
            send(5);
            let errors = apic::errors();
            check!(errors.contains(Esr::SEND_ILLEGAL_VECTOR), "the error register has {errors:?}");
            Ok(())
        });
        let came = wait::for_condition(|| count() >= 1);
        vectors::set_handler(vectors::APIC_ERROR, old);
        apic::errors();
        result?;
        came
    })
}

/// Read-only bits are not written. Reserved ones are ignored in xAPIC mode and refused in x2APIC mode.
fn lvt_bits() -> TestResult {
    not_on_qemu_tcg("read-only bits of the table")?;
    without_interrupts(|| {
        let old = apic::read(reg::LVT_LINT1);
        let wanted = Lvt::new().with_vector(0x77).with_delivery_mode(4).with_active_low(true).with_masked(true);
        apic::write(reg::LVT_LINT1, wanted.with_delivery_status(true).with_remote_irr(true).into_bits());
        let found = apic::read(reg::LVT_LINT1);
        apic::write(reg::LVT_LINT1, old);
        check_eq!(found, wanted.into_bits(), "LINT1 without its read-only bits");
        let old = apic::read(reg::LVT_TIMER);
        let wanted = Lvt::new().with_vector(0x66).with_masked(true).with_timer_mode_bits(TimerMode::Periodic as u8);
        if apic::in_x2apic() {
            let refused = probe::write_apic_msr(reg::LVT_TIMER, wanted.with_delivery_mode(7).into_bits().into());
            check!(refused.is_some(), "the timer's entry took a delivery mode");
            apic::write(reg::LVT_TIMER, wanted.into_bits());
        } else {
            apic::write(reg::LVT_TIMER, wanted.with_delivery_mode(7).into_bits());
        }
        let found = apic::read(reg::LVT_TIMER);
        apic::write(reg::LVT_TIMER, old);
        check_eq!(found, wanted.into_bits(), "the timer's entry, which has no delivery mode");
        Ok(())
    })
}

fn software_disable() -> TestResult {
    not_on_qemu_tcg("a disabled APIC masks its table")?;
    without_interrupts(|| {
        let svr = Svr::from_bits(apic::read(reg::SVR));
        let lint1 = apic::read(reg::LVT_LINT1);
        apic::write(reg::LVT_LINT1, Lvt::new().with_vector(0x77).into_bits());
        apic::write(reg::SVR, svr.with_enabled(false).into_bits());
        let masked = apic::read(reg::LVT_LINT1);
        apic::write(reg::LVT_LINT1, Lvt::new().with_vector(0x77).into_bits());
        let still = apic::read(reg::LVT_LINT1);
        // Also what it has masked besides: error, timer.
        apic::configure();
        apic::write(reg::LVT_LINT1, lint1);
        check!(Lvt::from_bits(masked).masked(), "disabling did not mask the table");
        check!(Lvt::from_bits(still).masked(), "a disabled APIC let an entry be unmasked");
        check_eq!(apic::read(reg::SVR), svr.into_bits(), "the register afterwards");
        Ok(())
    })
}

/// Neither its own nor those by way of the bus; and what was refused does not come later.
fn disabled_takes_none() -> TestResult {
    not_on_qemu_tcg("a disabled APIC takes no interrupt")?;
    with_vectors(&[0x56], trace, || {
        let requested = without_interrupts(|| {
            let svr = Svr::from_bits(apic::read(reg::SVR));
            apic::write(reg::SVR, svr.with_enabled(false).into_bits());
            send(0x56);
            apic::send_shorthand(Shorthand::Myself, 0x56);
            time::delay(1_000);
            let requested = apic::requested(0x56);
            apic::configure();
            requested
        });
        check!(!requested, "a disabled APIC has taken an interrupt");
        send(0x56);
        wait::for_condition(|| count() == 1)?;
        time::delay(1_000);
        check_eq!(count(), 1, "interrupts after it was enabled");
        Ok(())
    })
}

fn svr() -> TestResult {
    without_interrupts(|| {
        let old = Svr::from_bits(apic::read(reg::SVR));
        apic::write(reg::SVR, old.with_vector(0xa3).into_bits());
        let found = apic::read(reg::SVR);
        apic::write(reg::SVR, old.into_bits());
        check_eq!(found & 0xff, 0xa3, "all eight bits of the vector");
        Ok(())
    })
}

/// Programs the timer with the kernel's vector.
pub fn start_timer(mode: TimerMode, ticks: u32, masked: bool) {
    apic::write(reg::TIMER_DIVIDE, 0b1011);
    let lvt = Lvt::new().with_vector(vectors::LOCAL_TIMER).with_timer_mode_bits(mode as u8).with_masked(masked);
    apic::write(reg::LVT_TIMER, lvt.into_bits());
    apic::write(reg::TIMER_INITIAL, ticks);
}

fn stop_timer() {
    apic::write(reg::TIMER_INITIAL, 0);
    apic::write(reg::LVT_TIMER, Lvt::new().with_vector(vectors::LOCAL_TIMER).with_masked(true).into_bits());
}

static FIRED_AT: AtomicU64 = AtomicU64::new(0);

fn on_timer(_: &mut Frame) {
    FIRED_AT.store(tsc::read(), Ordering::SeqCst);
    COUNT.fetch_add(1, Ordering::SeqCst);
    apic::eoi();
}

/// With the timer's vector handled here.
pub fn with_timer(body: impl FnOnce() -> TestResult) -> TestResult {
    COUNT.store(0, Ordering::SeqCst);
    let old = vectors::set_handler(vectors::LOCAL_TIMER, Some(on_timer));
    let result = body();
    stop_timer();
    vectors::set_handler(vectors::LOCAL_TIMER, old);
    result
}

/// Ticks of a timer that runs at its full rate for about a millisecond, by the TSC's measure.
pub fn ticks_per_millisecond() -> u32 {
    time::calibrate::start_apic_timer(0);
    let measured = time::calibrate::measure(time::calibrate::TSC, time::calibrate::APIC_TIMER, tsc::hz() / 200);
    stop_timer();
    (measured.second / 5) as u32
}

fn one_shot() -> TestResult {
    with_timer(|| {
        let millisecond = ticks_per_millisecond();
        start_timer(TimerMode::OneShot, millisecond, false);
        wait::for_condition(|| count() == 1)?;
        check_eq!(apic::read(reg::TIMER_CURRENT), 0, "the count afterwards");
        time::delay(5_000);
        check_eq!(count(), 1, "interrupts");
        Ok(())
    })
}

/// By the TSC, with the rate as the two were measured against each other, and a thousandth for the measuring.
fn never_early() -> TestResult {
    with_timer(|| {
        time::calibrate::start_apic_timer(0);
        let rate = time::calibrate::measure(time::calibrate::TSC, time::calibrate::APIC_TIMER, tsc::hz() / 50);
        // Seen at once: it begins where it was told to. However late interrupts are here, this is exact.
        let (initial, started) = (rate.second as u32 * 5, tsc::read());
        start_timer(TimerMode::OneShot, initial, true);
        let gone = initial - apic::read(reg::TIMER_CURRENT);
        let took = tsc::read() - started;
        let counted = (u128::from(gone) * u128::from(rate.first) / u128::from(rate.second)) as u64;
        check!(counted <= took + took / 100, "it has counted down {counted} TSC ticks in {took}");
        for n in 1..=5u64 {
            let ticks = rate.second / 20 * n;
            let started = tsc::read();
            start_timer(TimerMode::OneShot, ticks as u32, false);
            wait::for_condition(|| u64::from(count()) == n)?;
            let took = FIRED_AT.load(Ordering::SeqCst).wrapping_sub(started);
            let expected = (u128::from(ticks) * u128::from(rate.first) / u128::from(rate.second)) as u64;
            check!(took + expected / 1000 >= expected, "fired after {took} of {expected} ticks");
        }
        Ok(())
    })
}

fn periodic() -> TestResult {
    with_timer(|| {
        start_timer(TimerMode::Periodic, 2 * ticks_per_millisecond(), false);
        for n in 1..=5 {
            wait::for_condition(|| count() >= n)?;
        }
        check!(apic::read(reg::TIMER_CURRENT) <= apic::read(reg::TIMER_INITIAL), "it counts from beyond its start");
        stop_timer();
        let stopped = count();
        time::delay(6_000);
        // One may have been on its way.
        check!(count() <= stopped + 1, "it goes on after it was stopped");
        Ok(())
    })
}

fn masked_timer() -> TestResult {
    with_timer(|| {
        // A busy host may look again only when a short time has passed.
        let mut time = ticks_per_millisecond();
        let seen = (0..4).any(|_| {
            start_timer(TimerMode::OneShot, time, true);
            let counts = apic::read(reg::TIMER_CURRENT) > 0;
            time *= 8;
            counts
        });
        check!(seen, "it does not count");
        wait::for_condition(|| apic::read(reg::TIMER_CURRENT) == 0)?;
        check_eq!(count(), 0, "interrupts while masked");
        check!(!apic::requested(vectors::LOCAL_TIMER), "a masked timer has requested its vector");
        Ok(())
    })
}

fn zero_stops() -> TestResult {
    with_timer(|| {
        start_timer(TimerMode::OneShot, 50 * ticks_per_millisecond(), false);
        apic::write(reg::TIMER_INITIAL, 0);
        check_eq!(apic::read(reg::TIMER_CURRENT), 0, "the count");
        time::delay(60_000);
        check_eq!(count(), 0, "interrupts");
        Ok(())
    })
}

/// Each step of the divider halves the rate, by a twentieth.
fn divides() -> TestResult {
    let mut last = None;
    for shift in 0..4 {
        time::calibrate::start_apic_timer(shift);
        let measured = time::calibrate::measure(time::calibrate::TSC, time::calibrate::APIC_TIMER, tsc::hz() / 100);
        stop_timer();
        let rate = measured.second * 1_000_000 / (measured.first / 1000).max(1);
        if let Some(last) = last {
            let twice = 2 * rate;
            check!(twice.abs_diff(last) < last / 20, "a rate of {rate} with half the clock of {last}");
        }
        last = Some(rate);
    }
    Ok(())
}

fn arm(deadline: u64) {
    let lvt = Lvt::new().with_vector(vectors::LOCAL_TIMER).with_timer_mode_bits(TimerMode::TscDeadline as u8);
    apic::write(reg::LVT_TIMER, lvt.into_bits());
    apic::set_tsc_deadline(deadline);
}

fn deadline() -> TestResult {
    with_timer(|| {
        for n in 1..=5 {
            let deadline = tsc::read() + tsc::hz() / 1000;
            arm(deadline);
            wait::for_condition(|| count() == n)?;
            let fired = FIRED_AT.load(Ordering::SeqCst);
            check!(fired >= deadline, "fired {} ticks early", deadline.wrapping_sub(fired));
            check_eq!(apic::tsc_deadline(), 0, "the deadline after it fired");
        }
        Ok(())
    })
}

fn past_deadline() -> TestResult {
    with_timer(|| {
        arm(1);
        wait::for_condition(|| count() == 1)?;
        check_eq!(apic::tsc_deadline(), 0, "the deadline after it fired");
        arm(tsc::read().saturating_sub(1000));
        wait::for_condition(|| count() == 2)
    })
}

fn zero_deadline() -> TestResult {
    with_timer(|| {
        let deadline = tsc::read() + tsc::hz() / 20;
        arm(deadline);
        check_eq!(apic::tsc_deadline(), deadline, "the deadline while it is armed");
        apic::set_tsc_deadline(0);
        check_eq!(apic::tsc_deadline(), 0, "the deadline after it was disarmed");
        time::delay(70_000);
        check_eq!(count(), 0, "interrupts");
        Ok(())
    })
}

fn mode_switch() -> TestResult {
    with_vectors(&[0x47], trace, || {
        let first = apic::in_x2apic();
        let id = apic::id();
        for round in 1..=4 {
            without_interrupts(|| apic::set_x2apic(!apic::in_x2apic()));
            let now = apic::in_x2apic();
            check_eq!(apic::id(), id, "the APIC ID with x2APIC {now}");
            send(0x47);
            let came = wait::for_condition(|| count() == round);
            if came.is_err() {
                without_interrupts(|| apic::set_x2apic(first));
            }
            came?;
        }
        check_eq!(apic::in_x2apic(), first, "the mode in the end");
        Ok(())
    })
}

/// Only in x2APIC mode, where registers are MSRs: what has no meaning gives a general-protection fault.
fn reserved_bits() -> TestResult {
    if !apic::in_x2apic() {
        return Err(Failure::skip(format_args!("the APIC is in xAPIC mode")));
    }
    let cases = [
        (reg::EOI, 1u64, "EOI other than 0"),
        (reg::ESR, 1, "ESR other than 0"),
        (reg::TPR, 1 << 32, "the high half of TPR"),
        (reg::TPR, 0x100, "TPR bit 8"),
        (reg::SVR, 1 << 31, "SVR bit 31"),
        (reg::ID, 0, "the ID, which is read only"),
        (reg::DFR, 0, "DFR, which is not there"),
        (reg::ICR_HIGH, 0, "the high half of ICR, which is not there"),
        (reg::SELF_IPI, 0x100, "SELF IPI bit 8"),
    ];
    for (register, value, what) in cases {
        let caught = probe::write_apic_msr(register, value);
        check_eq!(caught.map(|c| (c.vector, c.error)), Some((13, 0)), "{what}");
    }
    check!(probe::write_apic_msr(reg::TPR, 0).is_none(), "a good write of TPR");
    let icr = apic::message(DeliveryMode::Fixed, 0x47, apic::id()).into_bits() | 1 << 13;
    check!(probe::write_apic_msr(reg::ICR_LOW, icr).is_some(), "ICR bit 13");
    Ok(())
}
