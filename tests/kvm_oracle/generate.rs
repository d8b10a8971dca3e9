//! Operations for local APICs and I/O APIC, made up at random: few vectors, so that they meet.

use x86::apic::reg;
use x86::ioapic::REG_TABLE;
use x86::msr::{IA32_TSC_DEADLINE, X2APIC_FIRST};

use crate::apic::{ApicRig, BASE, CPUS, Op, x2apic_base};
use crate::avoid::LONG_COUNT;
use crate::common::Random;

const VECTORS: [u32; 8] = [0x31, 0x31, 0x3f, 0x42, 0x51, 0x51, 0xa0, 0xfe];
const LVTS: [u32; 6] =
    [reg::LVT_TIMER, reg::LVT_THERMAL, reg::LVT_PERF, reg::LVT_LINT0, reg::LVT_LINT1, reg::LVT_ERROR];
const MASKED: u32 = 1 << 16;
const TSC_DEADLINE_MODE: u32 = 2 << 17;
/// Divide configurations: by 8, 16, 32, 64, 128.
const DIVISORS: [u32; 5] = [0b10, 0b11, 0b1000, 0b1001, 0b1010];

/// The next one.
pub fn next(rig: &mut ApicRig, random: &mut Random) -> Op {
    if !std::mem::replace(&mut rig.begun, true) {
        rig.plan.extend(set_up(random));
    }
    if let Some(op) = rig.plan.pop_front() {
        return op;
    }
    let cpu = random.below(CPUS as u64) as usize;
    let pin = random.below(24) as u8;
    let any = random.bits() as u32;
    match random.below(1000) {
        0..=3 => plan_a_start(rig, random, cpu),
        4..=9 => plan_a_timer(rig, random, cpu),
        10..=11 => Op::WriteMsr(cpu, BASE, x2apic_base(cpu)),
        12..=14 => Op::WriteMsr(cpu, BASE, x2apic_base(cpu) ^ 1 << random.below(64)),
        15..=29 => Op::WriteMsr(cpu, X2APIC_FIRST + random.below(0x45) as u32, some_value(random)),
        30..=49 => Op::ReadMsr(cpu, X2APIC_FIRST + random.below(0x45) as u32),
        50..=54 => Op::FarDeadline(cpu, random.bits() as u32),
        55..=59 => Op::WriteMsr(cpu, IA32_TSC_DEADLINE, 0),
        60..=64 => Op::ReadMsr(cpu, random.one_of(&[IA32_TSC_DEADLINE, BASE])),
        65..=159 => Op::Read(cpu, some_readable(random)),
        160..=189 => Op::Write(cpu, reg::TPR, some_priority(random)),
        190..=204 => Op::WriteCr8(cpu, random.below(16) as u8),
        205..=214 => Op::ReadCr8(cpu),
        215..=224 => Op::Write(cpu, reg::SVR, random.one_of(&[0x1ff, 0x1ff, 0x1ff, 0x3ef, 0xff, 0x100])),
        225..=244 => Op::Write(cpu, reg::LDR, some_logical_id(random, cpu)),
        245..=254 => Op::Write(cpu, reg::DFR, random.one_of(&[u32::MAX, u32::MAX, 0x0fff_ffff, 0x7fff_ffff])),
        255..=289 => Op::Write(cpu, random.one_of(&LVTS), some_lvt(random)),
        290..=299 => Op::Write(cpu, reg::TIMER_INITIAL, random.one_of(&[0, LONG_COUNT | any])),
        300..=309 => Op::Write(cpu, reg::TIMER_DIVIDE, random.one_of(&DIVISORS)),
        310..=314 => Op::Write(cpu, random.one_of(&[reg::ESR, reg::PPR, reg::VERSION, 0x100, 0x210]), 0),
        315..=319 => Op::Write(cpu, reg::SELF_IPI, some_vector(random)),
        320..=324 => Op::Write(cpu, reg::ICR_HIGH, random.bits() as u32),
        325..=329 => Op::Write(cpu, reg::ICR_LOW, some_ipi(random)),
        330..=389 => Op::Ipi(cpu, some_destination(random), some_ipi(random)),
        390..=439 => Op::Msi(some_msi_address(random), some_message(random)),
        440..=444 => Op::IoRead(cpu, random.below(0x45) as u8),
        445..=449 => Op::IoWrite(cpu, random.one_of(&[0, 1, 2, 3, 0x40, 0x50]), random.bits() as u32),
        450..=499 => Op::IoWrite(cpu, REG_TABLE + 2 * pin, some_entry(random)),
        500..=529 => Op::IoWrite(cpu, REG_TABLE + 2 * pin + 1, some_entry_destination(random)),
        530..=699 => Op::Line(pin, rig.lines >> pin & 1 == 0),
        700..=849 => Op::Accept(cpu),
        _ => Op::Write(cpu, reg::EOI, 0),
    }
}

/// What every episode begins with.
fn set_up(random: &mut Random) -> Vec<Op> {
    let mut ops = Vec::new();
    let x2apics = random.one_of(&[0, 0, 0b111, 0b111, 0b110, 0b001]);
    for cpu in 0..CPUS {
        if x2apics >> cpu & 1 == 1 {
            ops.push(Op::WriteMsr(cpu, BASE, x2apic_base(cpu)));
        } else {
            ops.push(Op::Write(cpu, reg::LDR, 1 << (24 + cpu)));
        }
        ops.push(Op::Write(cpu, reg::SVR, 0x1ff));
        ops.push(Op::Write(cpu, reg::TIMER_DIVIDE, random.one_of(&DIVISORS)));
    }
    for pin in 0..24 {
        ops.push(Op::IoWrite(0, REG_TABLE + 2 * pin + 1, some_entry_destination(random)));
        ops.push(Op::IoWrite(0, REG_TABLE + 2 * pin, some_entry(random)));
    }
    ops
}

/// An INIT for another one, and start-ups, with something in between now and then.
fn plan_a_start(rig: &mut ApicRig, random: &mut Random, cpu: usize) -> Op {
    let other = (cpu + 1 + random.below(2) as usize) % CPUS;
    let start_up = Op::Ipi(cpu, other as u32, 0x600 | random.below(256) as u32);
    if random.chance(1, 2) {
        rig.plan.push_back(Op::Msi(some_msi_address(random), some_message(random)));
    }
    rig.plan.push_back(start_up);
    rig.plan.push_back(Op::Write(other, reg::SVR, 0x1ff));
    rig.plan.push_back(start_up);
    if random.chance(1, 8) {
        return Op::Msi(0xfee0_0000 | (other as u32) << 12, 0x500);
    }
    Op::Ipi(cpu, other as u32, 0x4500)
}

/// A timer that comes to its end.
fn plan_a_timer(rig: &mut ApicRig, random: &mut Random, cpu: usize) -> Op {
    let vector = some_vector(random);
    let mask = random.one_of(&[0, 0, 0, MASKED]);
    let op = match random.below(4) {
        0 => {
            rig.plan.push_back(Op::DeadlinePasses(cpu));
            Op::Write(cpu, reg::LVT_TIMER, TSC_DEADLINE_MODE | vector | mask)
        }
        1 => {
            let other = (cpu + 1) % CPUS;
            // A race is one between equals.
            let divide = random.below(4) as u32 | (random.below(2) as u32) << 3;
            rig.plan.push_back(Op::Write(cpu, reg::TIMER_DIVIDE, divide));
            rig.plan.push_back(Op::Write(other, reg::TIMER_DIVIDE, divide));
            rig.plan.push_back(Op::Write(other, reg::LVT_TIMER, vector));
            rig.plan.push_back(Op::Race(cpu, other));
            Op::Write(cpu, reg::LVT_TIMER, vector)
        }
        periodic => {
            rig.plan.push_back(Op::CountEnds(cpu, 1 + random.below(100_000) as u32));
            let mode = if periodic == 2 { 1 << 17 } else { 0 };
            Op::Write(cpu, reg::LVT_TIMER, mode | vector | mask)
        }
    };
    for _ in 0..random.below(3) {
        rig.plan.push_back(Op::Accept(cpu));
    }
    op
}

/// Mostly legal.
fn some_vector(random: &mut Random) -> u32 {
    let any = random.below(256) as u32;
    random.one_of(&[0x31, 0x3f, 0x42, 0x51, 0x51, 0xa0, 0xfe, any])
}

fn some_value(random: &mut Random) -> u64 {
    let small = u64::from(random.one_of(&VECTORS));
    let any = random.bits();
    random.one_of(&[0, small, small, any & 0xffff_ffff, any, any & 0xff])
}

fn some_priority(random: &mut Random) -> u32 {
    let any = random.below(256) as u32;
    random.one_of(&[0, 0, 0, any, any & 0x70, any & 0xf0])
}

fn some_readable(random: &mut Random) -> u32 {
    let set = random.below(8) as u32 * 0x10;
    random.one_of(&[
        reg::ID,
        reg::VERSION,
        reg::TPR,
        reg::PPR,
        reg::APR,
        reg::LDR,
        reg::DFR,
        reg::SVR,
        reg::ISR + set,
        reg::TMR + set,
        reg::IRR + set,
        reg::ESR,
        reg::ICR_LOW,
        reg::ICR_HIGH,
        reg::LVT_TIMER,
        reg::LVT_THERMAL,
        reg::LVT_PERF,
        reg::LVT_LINT0,
        reg::LVT_LINT1,
        reg::LVT_ERROR,
        reg::TIMER_INITIAL,
        reg::TIMER_DIVIDE,
    ])
}

fn some_logical_id(random: &mut Random, cpu: usize) -> u32 {
    let any = random.bits() as u32;
    random.one_of(&[1 << (24 + cpu), 1 << (24 + cpu), 0x1000_0000 << cpu, any, 0])
}

fn some_lvt(random: &mut Random) -> u32 {
    let any = random.bits() as u32;
    // The timer stays quiet unless it is asked: its count is long.
    some_vector(random)
        | random.one_of(&[0, MASKED, MASKED])
        | random.one_of(&[0, 0, any & 0x6_ff00, any & 0x0000_7000])
}

fn some_destination(random: &mut Random) -> u32 {
    let any = random.bits() as u32;
    random.one_of(&[0, 1, 2, 1, 2, 3, 4, 7, 0xff, u32::MAX, any, any & 0xf])
}

/// SMIs are of no interest.
fn some_mode(random: &mut Random) -> u32 {
    random.one_of(&[0, 0, 0, 0, 0, 0x100, 0x100, 0x400, 0x300, 0x700]) | random.one_of(&[0, 0, 0x800])
}

fn some_ipi(random: &mut Random) -> u32 {
    let any = random.bits() as u32;
    let reserved = random.one_of(&[0, 0, 0, 0x1000, any & 0xfff3_3000]);
    let shorthand = random.one_of(&[0, 0, 0, 1, 2, 3]) << 18;
    let level = random.one_of(&[0x4000, 0x4000, 0, 0x8000]);
    some_vector(random) | some_mode(random) | shorthand | level | reserved
}

fn some_msi_address(random: &mut Random) -> u32 {
    let to = random.one_of(&[0, 1, 2, 1, 2, 3, 4, 7, 0x10, 0xff]) << 12;
    0xfee0_0000 | to | random.one_of(&[0, 0, 0x4, 0x8, 0xc]) | random.one_of(&[0, 0, 0, 0x3])
}

fn some_message(random: &mut Random) -> u32 {
    let trigger = random.one_of(&[0, 0, 0x4000, 0xc000, 0xc000, 0x8000]);
    some_vector(random) | random.one_of(&[0, 0, 0, 0, 0x100, 0x400]) | trigger
}

fn some_entry(random: &mut Random) -> u32 {
    let any = random.bits() as u32;
    let mode = random.one_of(&[0, 0, 0, 0, 0, 0x100, 0x400]) | random.one_of(&[0, 0, 0x800]);
    let level = random.one_of(&[0, 0x8000, 0x8000]);
    let mask = random.one_of(&[0, 0, 0, 0, MASKED]);
    random.one_of(&VECTORS) | mode | level | mask | random.one_of(&[0, 0, any & 0xfffe_7000])
}

fn some_entry_destination(random: &mut Random) -> u32 {
    let any = random.bits() as u32;
    let to = random.one_of(&[0, 0, 1, 1, 2, 2, 3, 4, 7, 0xff]) << 24;
    to | random.one_of(&[0, 0, 0, any & 0x0001_ffff])
}
