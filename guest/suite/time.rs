//! C20: clock hardware, each measured with another. Nothing here says how long something may take: only that clocks agree, that nothing
//! comes too early, and that nothing that was missed comes all at once.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use kernel::arch::percpu;
use kernel::irq::desc::{Action, IrqReturn};
use kernel::irq::manage;
use kernel::smp::call;
use kernel::sync::without_interrupts;
use kernel::testing::{Failure, TestResult, not_on_qemu_tcg};
use kernel::time::calibrate::{self, Clock, measure, pm_clock};
use kernel::time::pit::{self, Channel0, Channel2};
use kernel::time::rtc::{self, Interrupts};
use kernel::time::{hpet, pm_timer, tsc};
use kernel::{check, check_eq, machine, test, time, wait};
use x86::platform::{IRQ_PIT, IRQ_RTC, PIT_HZ, PM_TIMER_HZ};
use x86::test_record::Needs;

use crate::irq::done;

test!("time.tsc_rate_is_steady", [20], tsc_steady);
test!("time.tsc_never_goes_back", [20], tsc_monotonic);
test!("time.tsc_agrees_between_cpus", [20], tsc_agrees; .cpus(2));
test!("time.pm_timer_counts_and_wraps", [20], pm_counts; .needs(Needs::PM_TIMER));
test!("time.pit_against_pm_timer", [20], pit_against_pm; .needs(Needs::PM_TIMER));
test!("time.hpet_against_pm_timer", [20], hpet_against_pm; .needs(Needs::HPET.union(Needs::PM_TIMER)));
test!("time.apic_timer_against_pm_timer", [20], apic_against_pm; .needs(Needs::PM_TIMER));
test!("time.pit_one_shot_is_never_early", [20], pit_never_early; .needs(Needs::PM_TIMER));
test!("time.pit_periodic_does_not_drift", [20], pit_no_drift; .needs(Needs::PM_TIMER));
test!("time.pit_does_not_replay_what_was_missed", [20], pit_no_replay; .needs(Needs::PM_TIMER));
test!("time.pit_counts_down_from_its_count", [20], pit_count; .needs(Needs::PM_TIMER).limit_ms(40_000));
test!("time.pit_period_is_exact", [20], pit_period; .needs(Needs::PM_TIMER).limit_ms(40_000));
test!("time.rtc_periodic_has_its_rate", [20], rtc_periodic; .needs(Needs::PM_TIMER));
test!("time.rtc_asks_until_it_is_read", [20], rtc_flags);
test!("time.rtc_updates_and_alarm", [20], rtc_update_and_alarm; .limit_ms(20_000));
test!("time.hpet_comparator_fires", [20], hpet_fires; .needs(Needs::HPET));

/// Two clocks over so many microseconds of the first agree with their rates, to a hundredth. Where the CPU was taken away between two
/// reads it is tried again: once in five it must hold.
fn agree(first: Clock, first_hz: u64, second: Clock, second_hz: u64, microseconds: u64) -> TestResult {
    let mut last = 0;
    for _ in 0..5 {
        let measured = measure(first, second, first_hz * microseconds / 1_000_000);
        let expected = (u128::from(measured.first) * u128::from(second_hz) / u128::from(first_hz)) as u64;
        last = measured.second;
        if last.abs_diff(expected) <= expected / 100 + 2 {
            return Ok(());
        }
    }
    let (first, second) = (first.name, second.name);
    Err(Failure::new(format_args!("{second} does not agree with {first}: {last} ticks in {microseconds} us of it")))
}

fn tsc_steady() -> TestResult {
    check!(tsc::hz() > 0, "its rate is not known");
    match machine::tables().pm_timer {
        0 => {
            Channel2::start(0xffff);
            agree(calibrate::PIT, PIT_HZ, calibrate::TSC, tsc::hz(), 20_000)
        }
        _ => agree(pm_clock(), PM_TIMER_HZ, calibrate::TSC, tsc::hz(), 50_000),
    }
}

fn tsc_monotonic() -> TestResult {
    let mut last = tsc::read();
    for _ in 0..2_000 {
        let now = tsc::read();
        check!(now >= last, "it went from {last} to {now}");
        last = now;
    }
    Ok(())
}

/// A value that one CPU has read lies between two that another reads before and after, with little room: hosts may offset them.
fn tsc_agrees() -> TestResult {
    static THERE: AtomicU64 = AtomicU64::new(0);
    fn read(_: usize) {
        THERE.store(tsc::read(), Ordering::SeqCst);
    }
    for cpu in percpu::cpus() {
        for _ in 0..10 {
            let before = tsc::read();
            call::call_on(cpu, read, 0, true);
            let after = tsc::read();
            let there = THERE.load(Ordering::SeqCst);
            let room = tsc::hz() / 1000;
            let fits = there + room >= before && there <= after + room;
            check!(fits, "CPU {} read {there} between {before} and {after}", cpu.number());
        }
    }
    Ok(())
}

fn pm_counts() -> TestResult {
    let first = pm_timer::read();
    wait::for_condition(|| pm_timer::read() != first)?;
    check_eq!(pm_timer::read() & !pm_timer::mask(), 0, "bits beyond its width");
    check_eq!(pm_timer::between(pm_timer::mask() - 1, 3), 5, "over the wrap");
    Ok(())
}

fn pit_against_pm() -> TestResult {
    Channel2::start(0xffff);
    agree(pm_clock(), PM_TIMER_HZ, calibrate::PIT, PIT_HZ, 20_000)
}

fn hpet_against_pm() -> TestResult {
    hpet::run();
    let period = hpet::period_fs();
    check!((1..=100_000_000).contains(&period), "its period of {period} fs");
    agree(pm_clock(), PM_TIMER_HZ, calibrate::HPET, 1_000_000_000_000_000 / period, 50_000)
}

/// Its rate is not known beforehand: measured twice, it is the same.
fn apic_against_pm() -> TestResult {
    calibrate::start_apic_timer(4);
    let measured = measure(pm_clock(), calibrate::APIC_TIMER, PM_TIMER_HZ / 20);
    let hz = (u128::from(measured.second) * u128::from(PM_TIMER_HZ) / u128::from(measured.first.max(1))) as u64;
    check!(hz > 0, "it does not count");
    agree(pm_clock(), PM_TIMER_HZ, calibrate::APIC_TIMER, hz, 50_000)
}

static COUNT: AtomicU32 = AtomicU32::new(0);
static FLAGS: AtomicU32 = AtomicU32::new(0);

fn count() -> u32 {
    COUNT.load(Ordering::SeqCst)
}

fn counting(_: u32, _: usize) -> IrqReturn {
    COUNT.fetch_add(1, Ordering::SeqCst);
    IrqReturn::Handled
}

/// With an ISA line as an edge, handled here.
fn with_line(isa: u8, handler: fn(u32, usize) -> IrqReturn, body: impl FnOnce() -> TestResult) -> TestResult {
    COUNT.store(0, Ordering::SeqCst);
    FLAGS.store(0, Ordering::SeqCst);
    let pin = machine::isa_pin(isa);
    done(manage::set_up_pin(pin, false))?;
    let action = Action { handler, thread: None, device: 0, name: "clock", shared: false };
    let result = done(manage::request(pin.into(), action)).and_then(|()| body());
    Channel0::stop();
    rtc::enable(Interrupts::empty());
    done(manage::free(pin.into(), 0))?;
    done(manage::tear_down(pin.into()))?;
    result
}

/// PM timer ticks in so many of the PIT's, less what reading both may cost.
fn pm_ticks(pit_ticks: u64) -> u64 {
    (pit_ticks * PM_TIMER_HZ / PIT_HZ).saturating_sub(8)
}

fn pit_never_early() -> TestResult {
    with_line(IRQ_PIT, counting, || {
        for (n, ticks) in [1u16, 100, 2_000, 12_000, 30_000].into_iter().enumerate() {
            let mut watch = pm_timer::Stopwatch::start();
            Channel0::one_shot(ticks);
            wait::for_condition(|| count() > n as u32)?;
            let took = watch.ticks();
            check!(took >= pm_ticks(ticks.into()), "{ticks} ticks of the PIT took {took} of the PM timer");
        }
        time::delay(20_000);
        check_eq!(count(), 5, "interrupts");
        Ok(())
    })
}

/// However late each one is, after many the clock is where it should be: not more than one ahead, and not behind by more than it was
/// held up at the end.
fn pit_no_drift() -> TestResult {
    with_line(IRQ_PIT, counting, || {
        let period = 4 * u64::from(pit::ticks(1_000));
        Channel0::periodic(period as u16);
        wait::for_condition(|| count() >= 1)?;
        let mut watch = pm_timer::Stopwatch::start();
        let first = count();
        wait::for_condition(|| count() >= first + 50)?;
        let took = watch.ticks();
        check!(took >= pm_ticks(period * 49), "50 periods took {took} ticks of the PM timer");
        Ok(())
    })
}

/// Interrupts off for many periods: one is kept, the others are gone for good.
fn pit_no_replay() -> TestResult {
    with_line(IRQ_PIT, counting, || {
        Channel0::periodic(4 * pit::ticks(1_000));
        wait::for_condition(|| count() >= 2)?;
        let before = kernel::sync::without_interrupts(|| {
            time::delay(60_000);
            Channel0::stop();
            count()
        });
        time::delay(10_000);
        check!(count() <= before + 2, "{} interrupts came after a long stop", count() - before);
        Ok(())
    })
}

/// What `f` gives, with the PM timer's count before and after; tried again until there is little time between them. Emulated hosts may
/// be too slow for that.
fn in_short<R>(f: impl Fn() -> R) -> Result<(R, u32, u32), Failure> {
    // 100 us: a few port accesses, where each leaves the guest.
    const SHORT: u32 = (PM_TIMER_HZ / 10_000) as u32;
    for _ in 0..1_000 {
        let found = without_interrupts(|| {
            let before = pm_timer::read();
            let result = f();
            (result, before, pm_timer::read())
        });
        if pm_timer::between(found.1, found.2) <= SHORT {
            return Ok(found);
        }
    }
    Err(Failure::skip(format_args!("every access of the PIT takes too long here")))
}

/// Ticks of the PIT in so many of the PM timer, whose rate is three times that.
fn pit_ticks(from: u32, to: u32) -> u32 {
    pm_timer::between(from, to) / 3
}

fn pit_count() -> TestResult {
    const COUNT: u16 = 60_000;
    let result = in_short(|| Channel0::one_shot(COUNT)).and_then(|((), before, after)| {
        let (count, first, last) = in_short(Channel0::count)?;
        let (least, most) = (pit_ticks(after, first), pit_ticks(before, last) + 2);
        let gone = u32::from(COUNT - count);
        check!(least <= gone + 2 && gone <= most, "it has counted {gone}, and should have {least} to {most}");
        Ok(())
    });
    Channel0::stop();
    result
}

/// After some hundred periods it is where it should be in its period: one tick too many in each would have added up.
fn pit_period() -> TestResult {
    const PERIOD: u32 = 1_000;
    const PERIODS: u64 = 300;
    Channel0::periodic(PERIOD as u16);
    let result = (|| {
        let (begun, before, first) = in_short(Channel0::count)?;
        time::delay(PERIODS * u64::from(PERIOD) * 1_000_000 / PIT_HZ);
        let (ended, last, after) = in_short(Channel0::count)?;
        let moved = (u32::from(begun) + PERIOD - u32::from(ended)) % PERIOD;
        let passed = pit_ticks(first, last);
        // How far the count is ahead of the least that has passed; there is as much room as the looks took.
        let ahead = (moved + PERIOD - passed % PERIOD + 2) % PERIOD;
        let room = pit_ticks(before, first) + pit_ticks(last, after) + 4;
        check!(ahead <= room, "it is {ahead} ticks ahead in its period after {passed}; {room} at most");
        Ok(())
    })();
    Channel0::stop();
    result
}

fn on_rtc(_: u32, _: usize) -> IrqReturn {
    FLAGS.fetch_or(rtc::take().bits().into(), Ordering::SeqCst);
    COUNT.fetch_add(1, Ordering::SeqCst);
    IrqReturn::Handled
}

fn rtc_periodic() -> TestResult {
    with_line(IRQ_RTC, on_rtc, || {
        rtc::set_rate(12); // 16 Hz: interrupts are late by much less than a period
        rtc::enable(Interrupts::PERIODIC);
        wait::for_condition(|| count() >= 1)?;
        let mut watch = pm_timer::Stopwatch::start();
        let first = count();
        wait::for_condition(|| count() >= first + 8)?;
        let took = watch.ticks();
        // The first of them may be nearly over when the clock is started.
        check!(took >= PM_TIMER_HZ / 16 * 7, "8 periods took {took} ticks");
        let flags = Interrupts::from_bits_truncate(FLAGS.load(Ordering::SeqCst) as u8);
        check!(flags.contains(Interrupts::PERIODIC | Interrupts::REQUEST), "flags {flags:?}");
        Ok(())
    })
}

/// The line stays up, without a new edge, until register C is read.
fn rtc_flags() -> TestResult {
    not_on_qemu_tcg("an edge for each rise of a line")?;
    with_line(IRQ_RTC, counting, || {
        rtc::set_rate(6);
        rtc::enable(Interrupts::PERIODIC);
        wait::for_condition(|| count() >= 1)?;
        // Enabling reads the register, too: one more may come of that.
        time::delay(5_000);
        let before = count();
        time::delay(10_000);
        check_eq!(count(), before, "interrupts without reading register C");
        check!(rtc::take().contains(Interrupts::PERIODIC | Interrupts::REQUEST), "flags");
        wait::for_condition(|| count() == before + 1)
    })
}

/// The alarm matches every second when all its fields are "don't care".
fn rtc_update_and_alarm() -> TestResult {
    with_line(IRQ_RTC, on_rtc, || {
        for alarm in [1, 3, 5] {
            rtc::write(alarm, 0xff);
        }
        let (seconds, ..) = rtc::time_of_day();
        rtc::enable(Interrupts::UPDATE | Interrupts::ALARM);
        // Other flags may be set without being enabled.
        let both: u32 = (Interrupts::UPDATE | Interrupts::ALARM | Interrupts::REQUEST).bits().into();
        wait::for_condition(|| FLAGS.load(Ordering::SeqCst) & both == both)?;
        check!(rtc::time_of_day().0 != seconds, "the time has not changed");
        Ok(())
    })
}

/// Timer 0, through the I/O APIC pin that it offers first.
fn hpet_fires() -> TestResult {
    hpet::run();
    let routes = hpet::read(hpet::timer_configuration(0)) >> 32;
    let Some(pin) = (0..24u8).find(|pin| routes & 1 << pin != 0) else {
        return Err(Failure::skip(format_args!("its timer 0 has no route to the I/O APIC")));
    };
    // The first route may be the PIT's pin, firmware leaves that running, and QEMU's has an edge left when it has been stopped.
    let replaces = machine::isa_pin(IRQ_PIT) == pin && hpet::can_replace_legacy();
    hpet::replace_legacy(replaces);
    COUNT.store(0, Ordering::SeqCst);
    done(manage::set_up_pin(pin, false))?;
    let result = done(manage::request_simply(pin.into(), counting, "hpet")).and_then(|()| {
        (1..=3).try_for_each(|n| {
            let mut ticks = 2_000_000_000_000 / hpet::period_fs(); // 2 ms
            loop {
                let target = hpet::count() + ticks;
                hpet::write(hpet::timer_comparator(0), target);
                // Interrupt enabled, edge, not periodic; afterwards off again, so that the next comparator is not compared half written.
                hpet::write(hpet::timer_configuration(0), u64::from(pin) << 9 | 1 << 2);
                let armed = hpet::count();
                let came = wait::for_condition(|| count() == n);
                let now = hpet::count();
                hpet::write(hpet::timer_configuration(0), 0);
                check!(came.is_err() || now >= target, "it fired at {now}, before {target}");
                // A comparator matches when the counter gets there: on a busy host it may have gone past before the interrupt was
                // enabled, and then comes round in years.
                if came.is_ok() || armed < target {
                    break came;
                }
                ticks *= 4;
            }
        })
    });
    hpet::write(hpet::timer_configuration(0), 0);
    hpet::replace_legacy(false);
    done(manage::free(pin.into(), 0))?;
    done(manage::tear_down(pin.into()))?;
    result
}
