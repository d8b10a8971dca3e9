//! The timer with a stepped clock, through the registers.

use x86::apic::reg;
use x86::msr::IA32_TSC_DEADLINE;

use super::tests::*;
use super::timer::MIN_PERIOD;
use super::*;

const VECTOR: u8 = 0xec;
const ONE_SHOT: u32 = VECTOR as u32;
const PERIODIC: u32 = 1 << 17 | VECTOR as u32;
const TSC_DEADLINE: u32 = 2 << 17 | VECTOR as u32;

fn at(ns: u64) -> Now {
    Now { ns, tsc: 0 }
}

fn tsc(tsc: u64) -> Now {
    Now { ns: 0, tsc }
}

fn write_at(apic: &mut LocalApic, ns: u64, offset: u32, value: u32) {
    assert_eq!(apic.write_mmio(ns, offset.into(), &value.to_le_bytes()), Effect::None);
}

fn read_at(apic: &mut LocalApic, ns: u64, offset: u32) -> u32 {
    let mut bytes = [0; 4];
    apic.read_mmio(ns, offset.into(), &mut bytes);
    u32::from_le_bytes(bytes)
}

fn current(apic: &mut LocalApic, ns: u64) -> u32 {
    read_at(apic, ns, reg::TIMER_CURRENT)
}

/// Divided by 1, in the mode that `lvt` says.
fn with_lvt(lvt: u32) -> LocalApic {
    let mut apic = xapic();
    write_at(&mut apic, 0, reg::LVT_TIMER, lvt);
    write_at(&mut apic, 0, reg::TIMER_DIVIDE, 0b1011);
    apic
}

/// Lets the timer look at the clock; says whether it interrupted, and ends the interrupt.
fn fires(apic: &mut LocalApic, now: Now) -> bool {
    apic.expire(now);
    let vector = apic.acknowledge();
    assert!(vector.is_none_or(|vector| vector == VECTOR));
    assert_eq!(apic.eoi(), Effect::None, "an edge");
    assert!(apic.irr().is_empty(), "never more than one");
    vector.is_some()
}

#[test]
fn one_shot_fires_once_when_the_count_is_over() {
    let mut apic = with_lvt(ONE_SHOT);
    write_at(&mut apic, 1000, reg::TIMER_INITIAL, 500);
    assert_eq!(apic.next_deadline(), Some(Deadline::At(1500)));
    assert!(!fires(&mut apic, at(1499)));
    assert!(fires(&mut apic, at(1500)));
    assert_eq!((apic.next_deadline(), current(&mut apic, 1500)), (None, 0));
    assert!(!fires(&mut apic, at(1_000_000_000)));
    assert_eq!(read_at(&mut apic, 2000, reg::TIMER_INITIAL), 500, "the initial count stays");
}

#[test]
fn the_current_count_counts_down() {
    let mut apic = with_lvt(ONE_SHOT);
    write_at(&mut apic, 1000, reg::TIMER_INITIAL, 500);
    for (ns, count) in [(1000, 500), (1001, 499), (1499, 1), (1500, 0), (9999, 0)] {
        assert_eq!(current(&mut apic, ns), count, "at {ns}");
    }
    assert_eq!(current(&mut apic, 10), 500, "a clock that is behind does not show more than the initial count");
}

#[test]
fn divide_configuration_slows_the_count() {
    for (divide, by) in
        [(0b0000, 2), (0b0001, 4), (0b0010, 8), (0b0011, 16), (0b1000, 32), (0b1001, 64), (0b1010, 128), (0b1011, 1)]
    {
        let mut apic = with_lvt(ONE_SHOT);
        write_at(&mut apic, 0, reg::TIMER_DIVIDE, divide);
        write_at(&mut apic, 0, reg::TIMER_INITIAL, 1000);
        assert_eq!(apic.next_deadline(), Some(Deadline::At(1000 * by)), "{divide:#06b}");
        assert_eq!(current(&mut apic, 400 * by), 600, "{divide:#06b}");
    }
}

#[test]
fn a_divide_change_while_counting_keeps_the_ticks() {
    let mut apic = with_lvt(ONE_SHOT);
    write_at(&mut apic, 0, reg::TIMER_INITIAL, 1000);
    write_at(&mut apic, 400, reg::TIMER_DIVIDE, 0b0001);
    assert_eq!(current(&mut apic, 400), 600);
    assert_eq!(apic.next_deadline(), Some(Deadline::At(400 + 600 * 4)));
    write_at(&mut apic, 1200, reg::TIMER_DIVIDE, 0b1011);
    assert_eq!(current(&mut apic, 1200), 400);
    assert!(!fires(&mut apic, at(1599)));
    assert!(fires(&mut apic, at(1600)));
    write_at(&mut apic, 1600, reg::TIMER_DIVIDE, 0);
    assert_eq!(apic.next_deadline(), None, "nothing was counting");
}

#[test]
fn rewriting_the_same_divide_configuration_moves_nothing() {
    let mut apic = with_lvt(ONE_SHOT);
    write_at(&mut apic, 0, reg::TIMER_DIVIDE, 0b1010);
    write_at(&mut apic, 0, reg::TIMER_INITIAL, 10);
    for ns in 1..1280 {
        // Reserved bits differ, the divisor does not.
        write_at(&mut apic, ns, reg::TIMER_DIVIDE, 0b1010 | ((ns as u32) << 4));
    }
    assert_eq!(apic.next_deadline(), Some(Deadline::At(1280)));
}

#[test]
fn a_new_initial_count_starts_afresh_and_zero_stops() {
    let mut apic = with_lvt(ONE_SHOT);
    write_at(&mut apic, 0, reg::TIMER_INITIAL, 1000);
    write_at(&mut apic, 900, reg::TIMER_INITIAL, 1000);
    assert!(!fires(&mut apic, at(1899)));
    write_at(&mut apic, 1899, reg::TIMER_INITIAL, 0);
    assert_eq!((apic.next_deadline(), current(&mut apic, 1899)), (None, 0));
    assert!(!fires(&mut apic, at(10_000)));
}

#[test]
fn the_longest_count_does_not_overflow() {
    let mut apic = with_lvt(PERIODIC);
    write_at(&mut apic, 0, reg::TIMER_DIVIDE, 0b1010);
    write_at(&mut apic, u64::MAX - 5, reg::TIMER_INITIAL, u32::MAX);
    assert_eq!(apic.next_deadline(), Some(Deadline::At(u64::MAX)));
    assert!(fires(&mut apic, at(u64::MAX)));
    assert_eq!(apic.next_deadline(), Some(Deadline::At(u64::MAX)));
}

#[test]
fn periodic_keeps_its_phase_however_late_it_is_noticed() {
    let mut apic = with_lvt(PERIODIC);
    let period = 1_000_000;
    write_at(&mut apic, 7, reg::TIMER_INITIAL, period as u32);
    for n in 1..=1000 {
        let due = 7 + n * period;
        assert_eq!(apic.next_deadline(), Some(Deadline::At(due)));
        assert!(fires(&mut apic, at(due + n * 137 % period)), "a little late each time");
    }
}

#[test]
fn periodic_never_replays_missed_periods() {
    let mut apic = with_lvt(PERIODIC);
    write_at(&mut apic, 0, reg::TIMER_INITIAL, 1_000_000);
    let late = 3_600_000_000_000 + 400_000;
    assert!(fires(&mut apic, at(late)), "an hour later: one");
    assert!(!fires(&mut apic, at(late)));
    assert_eq!(apic.next_deadline(), Some(Deadline::At(3_600_001_000_000)), "and in phase");
    assert_eq!(current(&mut apic, late), 600_000);
}

#[test]
fn short_periods_are_stretched_but_look_as_programmed() {
    let mut apic = with_lvt(PERIODIC);
    write_at(&mut apic, 0, reg::TIMER_INITIAL, 1);
    assert_eq!(apic.next_deadline(), Some(Deadline::At(MIN_PERIOD)));
    assert!(fires(&mut apic, at(MIN_PERIOD)));
    assert_eq!(apic.next_deadline(), Some(Deadline::At(2 * MIN_PERIOD)));
    assert_eq!(current(&mut apic, MIN_PERIOD), 1);
    let mut apic = with_lvt(ONE_SHOT);
    write_at(&mut apic, 0, reg::TIMER_INITIAL, 1);
    assert_eq!(apic.next_deadline(), Some(Deadline::At(1)), "one-shot is the guest's own pace");
}

#[test]
fn the_current_count_starts_over_each_period() {
    let mut apic = with_lvt(PERIODIC);
    write_at(&mut apic, 0, reg::TIMER_INITIAL, 1_000_000);
    assert_eq!(current(&mut apic, 999_999), 1);
    assert!(fires(&mut apic, at(1_000_000)));
    assert_eq!(current(&mut apic, 1_000_000), 1_000_000);
    assert_eq!(current(&mut apic, 1_250_000), 750_000);
}

#[test]
fn a_masked_timer_counts_and_its_expiry_is_lost() {
    let mut apic = with_lvt(MASKED | PERIODIC);
    write_at(&mut apic, 0, reg::TIMER_INITIAL, 1_000_000);
    assert!(!fires(&mut apic, at(1_000_000)));
    assert_eq!(apic.next_deadline(), Some(Deadline::At(2_000_000)));
    write_at(&mut apic, 1_500_000, reg::LVT_TIMER, PERIODIC);
    assert_eq!(current(&mut apic, 1_500_000), 500_000, "the mask does not touch the count");
    assert!(!fires(&mut apic, at(1_500_000)), "what was lost is not made up for");
    assert!(fires(&mut apic, at(2_000_000)));
}

#[test]
fn software_disable_silences_the_timer() {
    let mut apic = with_lvt(ONE_SHOT);
    write_at(&mut apic, 0, reg::TIMER_INITIAL, 500);
    let _ = write(&mut apic, reg::SVR, 0xff);
    assert!(!fires(&mut apic, at(500)));
}

#[test]
fn an_illegal_timer_vector_is_an_error_and_no_interrupt() {
    let mut apic = with_lvt(7);
    write_at(&mut apic, 0, reg::TIMER_INITIAL, 500);
    assert!(!fires(&mut apic, at(500)));
    let _ = write(&mut apic, reg::ESR, 0);
    assert_eq!(read(&mut apic, reg::ESR), 0x40);
}

#[test]
fn a_second_expiry_while_the_first_waits_is_one_interrupt() {
    let mut apic = with_lvt(PERIODIC);
    write_at(&mut apic, 0, reg::TIMER_INITIAL, 1_000_000);
    apic.expire(at(1_000_000));
    apic.expire(at(2_000_000));
    assert_eq!(apic.acknowledge(), Some(VECTOR));
    let _ = apic.eoi();
    assert_eq!(apic.acknowledge(), None);
}

#[test]
fn switching_between_one_shot_and_periodic_lets_the_count_go_on() {
    let mut apic = with_lvt(ONE_SHOT);
    write_at(&mut apic, 0, reg::TIMER_INITIAL, 1_000_000);
    write_at(&mut apic, 600_000, reg::LVT_TIMER, PERIODIC);
    assert_eq!(current(&mut apic, 600_000), 400_000);
    assert!(fires(&mut apic, at(1_000_000)));
    assert_eq!(apic.next_deadline(), Some(Deadline::At(2_000_000)), "now it reloads");
    write_at(&mut apic, 1_200_000, reg::LVT_TIMER, ONE_SHOT);
    assert_eq!(current(&mut apic, 1_200_000), 800_000);
    assert!(fires(&mut apic, at(2_000_000)));
    assert_eq!(apic.next_deadline(), None, "now it stops");
    write_at(&mut apic, 2_500_000, reg::LVT_TIMER, PERIODIC);
    assert_eq!((apic.next_deadline(), current(&mut apic, 2_500_000)), (None, 0), "and a switch does not start it");
}

#[test]
fn entering_and_leaving_tsc_deadline_mode_disarms() {
    let mut apic = with_lvt(PERIODIC);
    write_at(&mut apic, 0, reg::TIMER_INITIAL, 1_000_000);
    write_at(&mut apic, 10, reg::LVT_TIMER, TSC_DEADLINE);
    assert_eq!((apic.next_deadline(), current(&mut apic, 10)), (None, 0));
    assert_eq!(apic.write_msr(0, IA32_TSC_DEADLINE, 77), Ok(Effect::None));
    assert_eq!(apic.next_deadline(), Some(Deadline::Tsc(77)));
    write_at(&mut apic, 20, reg::LVT_TIMER, ONE_SHOT);
    assert_eq!(apic.next_deadline(), None);
    assert_eq!(apic.read_msr(0, IA32_TSC_DEADLINE), Ok(0));
    assert!(!fires(&mut apic, Now { ns: u64::MAX, tsc: u64::MAX }));
}

#[test]
fn a_rewrite_of_the_lvt_entry_in_the_same_mode_keeps_the_timer() {
    let mut apic = with_lvt(TSC_DEADLINE);
    let _ = apic.write_msr(0, IA32_TSC_DEADLINE, 77);
    write_at(&mut apic, 0, reg::LVT_TIMER, MASKED | TSC_DEADLINE);
    write_at(&mut apic, 0, reg::LVT_TIMER, TSC_DEADLINE);
    assert_eq!(apic.next_deadline(), Some(Deadline::Tsc(77)));
}

#[test]
fn the_tsc_deadline_fires_once_and_reads_0_then() {
    let mut apic = with_lvt(TSC_DEADLINE);
    let _ = apic.write_msr(0, IA32_TSC_DEADLINE, 1000);
    assert_eq!(apic.read_msr(0, IA32_TSC_DEADLINE), Ok(1000));
    assert!(!fires(&mut apic, Now { ns: u64::MAX, tsc: 999 }), "the TSC counts, not the clock");
    assert!(fires(&mut apic, tsc(1000)));
    assert_eq!(apic.read_msr(0, IA32_TSC_DEADLINE), Ok(0));
    assert_eq!(apic.next_deadline(), None);
    assert!(!fires(&mut apic, tsc(u64::MAX)));
}

#[test]
fn a_tsc_deadline_in_the_past_fires_at_once_and_once() {
    let mut apic = with_lvt(TSC_DEADLINE);
    let _ = apic.write_msr(0, IA32_TSC_DEADLINE, 1);
    assert!(apic.next_deadline().is_some_and(|deadline| deadline.is_due(tsc(5000))));
    assert!(fires(&mut apic, tsc(5000)));
    assert!(!fires(&mut apic, tsc(5001)));
}

#[test]
fn zero_disarms_the_tsc_deadline_and_a_write_replaces_it() {
    let mut apic = with_lvt(TSC_DEADLINE);
    let _ = apic.write_msr(0, IA32_TSC_DEADLINE, 1000);
    let _ = apic.write_msr(0, IA32_TSC_DEADLINE, 3000);
    assert!(!fires(&mut apic, tsc(2999)));
    let _ = apic.write_msr(0, IA32_TSC_DEADLINE, 0);
    assert_eq!(apic.next_deadline(), None);
    assert!(!fires(&mut apic, tsc(u64::MAX)));
}

#[test]
fn tsc_deadline_writes_are_ignored_in_the_counting_modes() {
    for lvt in [ONE_SHOT, PERIODIC] {
        let mut apic = with_lvt(lvt);
        assert_eq!(apic.write_msr(0, IA32_TSC_DEADLINE, 1), Ok(Effect::None));
        assert_eq!((apic.read_msr(0, IA32_TSC_DEADLINE), apic.next_deadline()), (Ok(0), None));
        write_at(&mut apic, 0, reg::LVT_TIMER, TSC_DEADLINE);
        assert_eq!(apic.next_deadline(), None, "nor remembered");
    }
}

#[test]
fn initial_count_writes_are_ignored_in_tsc_deadline_mode() {
    let mut apic = with_lvt(TSC_DEADLINE);
    let _ = apic.write_msr(0, IA32_TSC_DEADLINE, 1000);
    write_at(&mut apic, 0, reg::TIMER_INITIAL, 5);
    assert_eq!(apic.next_deadline(), Some(Deadline::Tsc(1000)));
    write_at(&mut apic, 0, reg::TIMER_INITIAL, 0);
    assert_eq!(apic.next_deadline(), Some(Deadline::Tsc(1000)), "not even a stop");
    assert_eq!((read_at(&mut apic, 0, reg::TIMER_INITIAL), current(&mut apic, 0)), (0, 0));
}

#[test]
fn a_masked_tsc_deadline_is_used_up() {
    let mut apic = with_lvt(MASKED | TSC_DEADLINE);
    let _ = apic.write_msr(0, IA32_TSC_DEADLINE, 1000);
    assert!(!fires(&mut apic, tsc(1000)));
    assert_eq!(apic.read_msr(0, IA32_TSC_DEADLINE), Ok(0));
    write_at(&mut apic, 0, reg::LVT_TIMER, TSC_DEADLINE);
    assert!(!fires(&mut apic, tsc(2000)));
}

#[test]
fn x2apic_mode_has_the_same_timer() {
    let mut apic = x2apic();
    for (number, value) in [(0x832, u64::from(ONE_SHOT)), (0x83e, 0b1011), (0x838, 500)] {
        assert_eq!(apic.write_msr(100, number, value), Ok(Effect::None));
    }
    assert_eq!(apic.read_msr(200, 0x839), Ok(400));
    assert!(fires(&mut apic, at(600)));
}

#[test]
fn a_count_survives_the_change_to_x2apic_mode() {
    let mut apic = with_lvt(ONE_SHOT);
    write_at(&mut apic, 0, reg::TIMER_INITIAL, 500);
    let _ = apic.write_base(apic.base() | EXTD);
    assert_eq!(apic.read_msr(100, 0x839), Ok(400));
    assert!(fires(&mut apic, at(500)));
}
