//! Register access in both modes: which registers there are, which bits, which widths; errors.

use x86::apic::reg;
use x86::msr::IA32_TSC_DEADLINE;

use super::tests::*;
use super::*;

const LVT_ENTRIES: [u32; 7] =
    [reg::LVT_CMCI, reg::LVT_TIMER, reg::LVT_THERMAL, reg::LVT_PERF, reg::LVT_LINT0, reg::LVT_LINT1, reg::LVT_ERROR];

fn with_cmci() -> Config {
    Config { cmci: true, ..config() }
}

/// Every register the xAPIC page has: ID, version, TPR … divide configuration.
fn exists_in_xapic(offset: u32) -> bool {
    matches!(offset, 0x20 | 0x30 | 0x80..=0xf0 | 0x100..=0x280 | 0x2f0..=0x390 | 0x3e0)
}

#[test]
fn x2apic_msrs_are_exactly_those_of_the_manual() {
    let mut apic = LocalApic::new(with_cmci());
    let _ = apic.write_base(apic.base() | EXTD);
    for number in 0x800..=0x8ff {
        let readable = matches!(number, 0x802 | 0x803 | 0x808 | 0x80a | 0x80d | 0x80f..=0x828 | 0x82f | 0x830 | 0x832..=0x839 | 0x83e);
        let writable = matches!(number, 0x808 | 0x80b | 0x80f | 0x828 | 0x82f | 0x830 | 0x832..=0x838 | 0x83e | 0x83f);
        assert_eq!(apic.clone().read_msr(0, number).is_ok(), readable, "rdmsr {number:#x}");
        assert_eq!(apic.clone().write_msr(0, number, 0).is_ok(), writable, "wrmsr {number:#x}");
    }
    let mut without = x2apic();
    assert_eq!(without.read_msr(0, 0x82f), Err(Gp), "no CMCI entry without the capability");
    assert_eq!(without.write_msr(0, 0x82f, 0), Err(Gp));
}

#[test]
fn msrs_outside_the_range_are_no_registers() {
    // Each of these once shifted into the offset of TPR.
    for number in [0, 0x7ff, 0x900, 0x1000_0808, 0xf000_0808] {
        assert_eq!(x2apic().read_msr(0, number), Err(Gp), "{number:#x}");
        assert_eq!(x2apic().write_msr(0, number, 0), Err(Gp), "{number:#x}");
    }
}

#[test]
fn x2apic_msrs_are_absent_in_the_other_modes() {
    let mut disabled = xapic();
    let _ = disabled.write_base(disabled.base() & !ENABLE);
    for mut apic in [xapic(), disabled] {
        let before = apic.clone();
        for number in 0x800..=0x8ff {
            assert_eq!(apic.read_msr(0, number), Err(Gp));
            assert_eq!(apic.write_msr(0, number, 0), Err(Gp));
        }
        assert_eq!(apic, before);
    }
}

#[test]
fn reserved_bits_of_x2apic_msrs_give_gp() {
    let mut base = LocalApic::new(with_cmci());
    let _ = base.write_base(base.base() | EXTD);
    for (number, allowed) in [
        (0x808, 0xff),
        (0x80b, 0),
        (0x80f, 0x13ff),
        (0x828, 0),
        (0x82f, 0x1_17ff),
        (0x830, 0xffff_ffff_000c_dfff),
        (0x832, 0x7_10ff),
        (0x833, 0x1_17ff),
        (0x834, 0x1_17ff),
        (0x835, 0x1_f7ff),
        (0x836, 0x1_f7ff),
        (0x837, 0x1_10ff),
        (0x838, 0xffff_ffff),
        (0x83e, 0xb),
        (0x83f, 0xff),
    ] {
        for bit in 0..64 {
            let mut apic = base.clone();
            let ok = apic.write_msr(0, number, 1 << bit).is_ok();
            assert_eq!(ok, allowed & 1u64 << bit != 0, "wrmsr {number:#x}, bit {bit}");
            assert!(ok || apic == base, "a faulting write changes nothing");
        }
    }
}

#[test]
fn tsc_deadline_needs_its_cpuid_bit_and_no_mode() {
    let mut without = LocalApic::new(Config { tsc_deadline: false, ..config() });
    assert_eq!(without.read_msr(0, IA32_TSC_DEADLINE), Err(Gp));
    assert_eq!(without.write_msr(0, IA32_TSC_DEADLINE, 5), Err(Gp));
    let _ = write(&mut without, reg::SVR, 0x1ff);
    let _ = write(&mut without, reg::LVT_TIMER, 0x4_0030);
    assert_eq!(read(&mut without, reg::LVT_TIMER), 0x30, "the mode can't be chosen");
    let _ = without.write_base(without.base() | EXTD);
    assert_eq!(without.write_msr(0, msr(reg::LVT_TIMER), 0x4_0030), Err(Gp));
    for mut apic in [xapic(), x2apic()] {
        assert_eq!(apic.read_msr(0, IA32_TSC_DEADLINE), Ok(0));
        assert_eq!(apic.write_msr(0, IA32_TSC_DEADLINE, 5), Ok(Effect::None));
    }
}

#[test]
fn version_tells_the_lvt_entries_and_eoi_suppression() {
    assert_eq!(read(&mut xapic(), reg::VERSION), 0x0105_0014);
    assert_eq!(read(&mut LocalApic::new(with_cmci()), reg::VERSION), 0x0106_0014);
    assert_eq!(x2apic().read_msr(0, msr(reg::VERSION)), Ok(0x0105_0014));
}

#[test]
fn accesses_to_reserved_registers_are_errors() {
    let base = LocalApic::new(with_cmci());
    for offset in (0..0x1000).step_by(16) {
        let expected = if exists_in_xapic(offset) { 0 } else { 0x80 };
        let mut apic = base.clone();
        let value = read(&mut apic, offset);
        let _ = write(&mut apic, reg::ESR, 0);
        assert_eq!(read(&mut apic, reg::ESR), expected, "read of {offset:#x}");
        assert!(expected == 0 || value == 0, "read of {offset:#x}");
        let mut apic = base.clone();
        let _ = write(&mut apic, offset, 0x20);
        let _ = write(&mut apic, reg::ESR, 0);
        assert_eq!(read(&mut apic, reg::ESR), expected, "write of {offset:#x}");
    }
    let mut without = xapic();
    let _ = read(&mut without, reg::LVT_CMCI);
    let _ = write(&mut without, reg::ESR, 0);
    assert_eq!(read(&mut without, reg::ESR), 0x80);
}

#[test]
fn read_only_registers_ignore_writes() {
    let mut base = xapic();
    service(&mut base, 0x31, LEVEL);
    base.accept(0x61, EDGE);
    let read_only = [reg::ID, reg::VERSION, reg::APR, reg::PPR, reg::RRD, reg::TIMER_CURRENT];
    for offset in read_only.into_iter().chain((reg::ISR..reg::ESR).step_by(16)) {
        let mut apic = base.clone();
        assert_eq!(write(&mut apic, offset, u32::MAX), Effect::None);
        assert_eq!(apic, base, "{offset:#x}");
    }
}

#[test]
fn narrow_wide_and_unaligned_reads_give_the_bytes_they_name() {
    let mut apic = xapic();
    service(&mut apic, 0x31, LEVEL);
    apic.accept(0x61, EDGE);
    let registers: Vec<u8> = (0..0x400u64)
        .map(|at| if at % 16 < 4 { read(&mut apic, at as u32 & !0xf).to_le_bytes()[at as usize % 16] } else { 0 })
        .collect();
    for size in [1, 2, 3, 4, 8, 16] {
        for offset in 0..0x400 - size {
            let mut data = vec![0xaa; size];
            apic.read_mmio(0, offset as u64, &mut data);
            assert_eq!(data, registers[offset..offset + size], "{size} bytes at {offset:#x}");
        }
    }
    assert_eq!(registers[0x23], 0x25, "the ID as one byte");
}

#[test]
fn only_aligned_32_bit_writes_count() {
    let base = xapic();
    let value = [0x55; 16];
    for size in [0, 1, 2, 3, 5, 8, 16] {
        let mut apic = base.clone();
        assert_eq!(apic.write_mmio(0, reg::TPR.into(), &value[..size]), Effect::None);
        assert_eq!(apic, base, "{size} bytes");
    }
    for skew in 1..16 {
        let mut apic = base.clone();
        assert_eq!(apic.write_mmio(0, u64::from(reg::TPR) + skew, &value[..4]), Effect::None);
        assert_eq!(apic, base, "off by {skew}");
    }
}

#[test]
fn the_page_answers_only_in_xapic_mode() {
    let mut disabled = xapic();
    let _ = disabled.write_base(disabled.base() & !ENABLE);
    for mut apic in [x2apic(), disabled] {
        let before = apic.clone();
        assert_eq!(read(&mut apic, reg::ID), u32::MAX);
        assert_eq!(read(&mut apic, 0), u32::MAX);
        assert_eq!(write(&mut apic, reg::TPR, 0x55), Effect::None);
        assert_eq!(apic, before);
    }
}

#[test]
fn lvt_entries_have_only_the_bits_of_the_manual() {
    let mut apic = LocalApic::new(with_cmci());
    let _ = write(&mut apic, reg::SVR, 0x1ff);
    let bits = [0x1_07ff, 0x7_00ff, 0x1_07ff, 0x1_07ff, 0x1_a7ff, 0x1_a7ff, 0x1_00ff];
    for (offset, bits) in LVT_ENTRIES.into_iter().zip(bits) {
        let _ = write(&mut apic, offset, u32::MAX);
        assert_eq!(read(&mut apic, offset), bits, "{offset:#x}");
        let _ = write(&mut apic, offset, 0);
        assert_eq!(read(&mut apic, offset), 0, "{offset:#x}");
    }
}

#[test]
fn other_registers_have_only_the_bits_of_the_manual() {
    let mut apic = xapic();
    for (offset, bits) in [
        (reg::TPR, 0xff),
        (reg::LDR, 0xff00_0000),
        (reg::SVR, 0x13ff),
        (reg::ICR_HIGH, 0xff00_0000),
        (reg::TIMER_DIVIDE, 0xb),
        (reg::TIMER_INITIAL, u32::MAX),
    ] {
        let _ = write(&mut apic, offset, u32::MAX);
        assert_eq!(read(&mut apic, offset), bits, "{offset:#x}");
    }
    assert_eq!(read(&mut apic, reg::EOI), 0, "write only");
}

#[test]
fn svr_is_news_to_others_only_when_it_enables_or_disables() {
    let mut apic = LocalApic::new(config());
    assert_eq!(write(&mut apic, reg::SVR, 0x0fe), Effect::None);
    assert_eq!(write(&mut apic, reg::SVR, 0x1fe), Effect::Readdressed);
    assert!(apic.address().enabled);
    assert_eq!(write(&mut apic, reg::SVR, 0x1ff), Effect::None);
    assert_eq!(write(&mut apic, reg::SVR, 0x0ff), Effect::Readdressed);
}

#[test]
fn irr_isr_and_tmr_show_32_vectors_each() {
    let mut apic = xapic();
    service(&mut apic, 0x20, EDGE);
    service(&mut apic, 0xff, LEVEL);
    for vector in [0x10, 0x3f, 0x40, 0xe0] {
        apic.accept(vector, EDGE);
    }
    let mut row = |first: u32| (0..8).map(|i| read(&mut apic, first + i * 16)).collect::<Vec<_>>();
    assert_eq!(row(reg::ISR), [0, 1, 0, 0, 0, 0, 0, 1 << 31]);
    assert_eq!(row(reg::TMR), [0, 0, 0, 0, 0, 0, 0, 1 << 31]);
    assert_eq!(row(reg::IRR), [1 << 16, 1 << 31, 1, 0, 0, 0, 0, 1]);
}

#[test]
fn apr_is_the_highest_of_task_service_and_request() {
    // TPR, in service, requested, APR.
    for (tpr, isr, irr, apr) in [
        (0x2f, None, None, 0x2f),
        (0x2f, None, Some(0x2e), 0x2f),
        (0x2f, Some(0x31), None, 0x30),
        (0, Some(0x31), Some(0x4f), 0x40),
    ] {
        let mut apic = xapic();
        if let Some(vector) = isr {
            service(&mut apic, vector, EDGE);
        }
        if let Some(vector) = irr {
            apic.accept(vector, EDGE);
        }
        let _ = write(&mut apic, reg::TPR, tpr);
        assert_eq!(read(&mut apic, reg::APR), apr);
    }
}

#[test]
fn esr_shows_errors_only_once_it_is_written() {
    let mut apic = xapic();
    apic.accept(3, EDGE);
    assert_eq!(read(&mut apic, reg::ESR), 0);
    let _ = write(&mut apic, reg::ESR, 0x1234);
    assert_eq!(read(&mut apic, reg::ESR), 0x40);
    let _ = read(&mut apic, 0);
    assert_eq!(read(&mut apic, reg::ESR), 0x40, "the new error is still to be latched");
    let _ = write(&mut apic, reg::ESR, 0);
    assert_eq!(read(&mut apic, reg::ESR), 0x80, "and replaces what was there");
    let _ = write(&mut apic, reg::ESR, 0);
    assert_eq!(read(&mut apic, reg::ESR), 0);
}

#[test]
fn the_error_interrupt_comes_once_until_esr_is_written() {
    let mut apic = xapic();
    let _ = write(&mut apic, reg::LVT_ERROR, 0xfe);
    apic.accept(3, EDGE);
    assert_eq!(apic.acknowledge(), Some(0xfe));
    assert_eq!(apic.eoi(), Effect::None, "an edge");
    apic.accept(4, EDGE);
    let _ = read(&mut apic, 0);
    assert_eq!(apic.acknowledge(), None);
    let _ = write(&mut apic, reg::ESR, 0);
    assert_eq!(apic.acknowledge(), None, "the write rearms, it does not send");
    apic.accept(5, EDGE);
    assert_eq!(apic.acknowledge(), Some(0xfe));
}

#[test]
fn a_masked_error_interrupt_is_not_sent_and_not_used_up() {
    let mut apic = xapic();
    let _ = write(&mut apic, reg::LVT_ERROR, MASKED | 0xfe);
    apic.accept(3, EDGE);
    let _ = write(&mut apic, reg::LVT_ERROR, 0xfe);
    assert_eq!(apic.acknowledge(), None, "unmasking sends nothing");
    apic.accept(3, EDGE);
    assert_eq!(apic.acknowledge(), Some(0xfe));
}

#[test]
fn an_error_interrupt_with_an_illegal_vector_is_one_more_error() {
    let mut apic = xapic();
    let _ = write(&mut apic, reg::LVT_ERROR, 5);
    let _ = read(&mut apic, 0);
    let _ = write(&mut apic, reg::ESR, 0);
    assert_eq!(read(&mut apic, reg::ESR), 0xc0);
    assert!(apic.irr().is_empty());
}

#[test]
fn posted_illegal_vectors_are_receive_errors() {
    let mut apic = xapic();
    post(&mut apic, 15, LEVEL);
    let _ = write(&mut apic, reg::ESR, 0);
    assert_eq!(read(&mut apic, reg::ESR), 0x40);
    post(&mut apic, 16, LEVEL);
    let _ = write(&mut apic, reg::ESR, 0);
    assert_eq!(read(&mut apic, reg::ESR), 0);
}

#[test]
fn x2apic_mode_latches_errors_as_xapic_mode_does() {
    let mut apic = x2apic();
    let esr = |apic: &mut LocalApic| {
        assert_eq!(apic.write_msr(0, 0x828, 0), Ok(Effect::None));
        apic.read_msr(0, 0x828)
    };
    assert_eq!(apic.write_msr(0, 0x83f, 7), Ok(Effect::None));
    assert_eq!(esr(&mut apic), Ok(0x60), "an illegal self IPI is sent and received");
    assert_eq!(apic.read_msr(0, 0x804), Err(Gp));
    assert_eq!(esr(&mut apic), Ok(0), "a fault is no APIC error");
}
