//! A local APIC in words: registers by the names of the Intel SDM vol. 3A, table "Local APIC Register Address Map".

use std::fmt::Write;

use x86::apic::{DeliveryMode, Esr, Icr, Lvt, Shorthand, Svr, TimerMode, reg};
use x86::msr::ApicBase;

use super::questions::ApicRegisters;

const LVT: [(&str, u32); 7] = [
    ("CMCI", reg::LVT_CMCI),
    ("Timer", reg::LVT_TIMER),
    ("Thermal", reg::LVT_THERMAL),
    ("Perf", reg::LVT_PERF),
    ("LINT0", reg::LVT_LINT0),
    ("LINT1", reg::LVT_LINT1),
    ("Error", reg::LVT_ERROR),
];

/// Shows the local APIC of vCPU `index`.
pub fn show(index: usize, apic: &ApicRegisters) -> String {
    let at = |offset: u32| apic.page[(offset >> 4) as usize];
    let base = ApicBase::from_bits_truncate(apic.base);
    let mode = match (base.contains(ApicBase::ENABLE), base.contains(ApicBase::X2APIC)) {
        (false, _) => "disabled",
        (true, false) => "xAPIC",
        (true, true) => "x2APIC",
    };
    let bsp = if base.contains(ApicBase::BSP) { ", bootstrap processor" } else { "" };
    let svr = Svr::from_bits(at(reg::SVR));
    let icr = Icr::from_bits(u64::from(at(reg::ICR_HIGH)) << 32 | u64::from(at(reg::ICR_LOW)));
    let version = at(reg::VERSION);
    let last_lvt = version >> 16 & 0xff;

    let mut lines = vec![
        format!("local APIC of vCPU {index}: {mode}{bsp}; IA32_APIC_BASE {:#x}", apic.base),
        format!("  ID      {:08x}   version {:#04x}, {} LVT entries", at(reg::ID), version & 0xff, last_lvt + 1),
        format!("  TPR     {:02x}         PPR {:02x}", at(reg::TPR), at(reg::PPR)),
        format!("  LDR     {:08x}   DFR {:08x}", at(reg::LDR), at(reg::DFR)),
        format!(
            "  SVR     {:08x}   {}, spurious vector {:#04x}{}",
            svr.into_bits(),
            if svr.enabled() { "enabled" } else { "software-disabled" },
            svr.vector(),
            if svr.suppress_eoi_broadcast() { ", EOI broadcasts suppressed" } else { "" },
        ),
        format!("  ESR     {:08x}   {}", at(reg::ESR), errors(at(reg::ESR))),
        format!("  ICR     {:016x} {}", icr.into_bits(), icr_words(icr, mode == "x2APIC")),
    ];
    for (name, offset) in LVT.iter().filter(|(name, _)| *name != "CMCI" || last_lvt > 5) {
        let entry = Lvt::from_bits(at(*offset));
        lines.push(format!("  LVT {name:<8}{:08x} {}", entry.into_bits(), lvt_words(name, entry)));
    }
    lines.push(format!(
        "  timer   initial count {}, current count {}, divide by {}; IA32_TSC_DEADLINE {:#x}",
        at(reg::TIMER_INITIAL),
        at(reg::TIMER_CURRENT),
        divisor(at(reg::TIMER_DIVIDE)),
        apic.tsc_deadline,
    ));
    for (name, first) in [("IRR", reg::IRR), ("ISR", reg::ISR), ("TMR", reg::TMR)] {
        lines.push(format!("  {name}     {}", vectors(|word| at(first + word * 0x10))));
    }
    lines.join("\n") + "\n"
}

/// The vectors whose bits are set in eight registers.
fn vectors(register: impl Fn(u32) -> u32) -> String {
    let mut text = String::new();
    for vector in (0..256).filter(|vector| register(vector / 32) & 1 << (vector % 32) != 0) {
        let space = if text.is_empty() { "" } else { " " };
        // Writing to a String can't fail.
        let _ = write!(text, "{space}{vector:#04x}");
    }
    if text.is_empty() { "none".to_owned() } else { text }
}

fn errors(esr: u32) -> String {
    let names: Vec<String> =
        Esr::from_bits_truncate(esr).iter_names().map(|(name, _)| name.to_lowercase().replace('_', " ")).collect();
    if names.is_empty() { "no errors".to_owned() } else { names.join(", ") }
}

/// A delivery mode as the manuals write it.
pub fn delivery(mode: Option<DeliveryMode>) -> &'static str {
    match mode {
        Some(DeliveryMode::Fixed) => "Fixed",
        Some(DeliveryMode::LowestPriority) => "LowestPri",
        Some(DeliveryMode::Smi) => "SMI",
        Some(DeliveryMode::Nmi) => "NMI",
        Some(DeliveryMode::Init) => "INIT",
        Some(DeliveryMode::StartUp) => "Start-up",
        Some(DeliveryMode::ExtInt) => "ExtINT",
        Some(DeliveryMode::RemoteRead) | None => "reserved",
    }
}

fn icr_words(icr: Icr, x2apic: bool) -> String {
    let to = match icr.shorthand() {
        Shorthand::None => {
            let id = if x2apic { icr.destination() } else { icr.destination() >> 24 };
            format!("{} {id:#x}", if icr.logical() { "logical" } else { "physical" })
        }
        Shorthand::Myself => "self".to_owned(),
        Shorthand::All => "all including self".to_owned(),
        Shorthand::AllButSelf => "all excluding self".to_owned(),
    };
    format!("{} vector {:#04x} to {to}", delivery(Some(icr.mode())), icr.vector())
}

fn lvt_words(name: &str, entry: Lvt) -> String {
    let mut words = vec![format!("vector {:#04x}", entry.vector())];
    match name {
        "Timer" => words.push(
            match entry.timer_mode() {
                TimerMode::OneShot => "one-shot",
                TimerMode::Periodic => "periodic",
                TimerMode::TscDeadline => "TSC-deadline",
                TimerMode::Reserved => "reserved mode",
            }
            .to_owned(),
        ),
        "Error" => {}
        _ => words.push(delivery(Some(entry.mode())).to_owned()),
    }
    if name.starts_with("LINT") {
        words.push(if entry.level() { "level" } else { "edge" }.to_owned());
        words.push(if entry.active_low() { "active low" } else { "active high" }.to_owned());
    }
    for (set, word) in
        [(entry.masked(), "masked"), (entry.remote_irr(), "remote IRR"), (entry.delivery_status(), "send pending")]
    {
        words.extend(set.then(|| word.to_owned()));
    }
    words.join(", ")
}

/// What a divide configuration register divides by (section "APIC Timer").
fn divisor(divide: u32) -> u32 {
    1 << (((divide & 0b11 | (divide & 0b1000) >> 1) + 1) & 0b111)
}
