//! Local APIC registers (Intel SDM vol. 3A, sections "The Local APIC Block Diagram", "Local Vector Table",
//! "Interrupt Command Register (ICR)" and "Message Signalled Interrupts").

/// Byte offsets in the xAPIC MMIO page; `offset >> 4` added to [`crate::msr::X2APIC_FIRST`] gives the x2APIC MSR.
pub mod reg {
    /// Local APIC ID.
    pub const ID: u32 = 0x020;
    /// Version.
    pub const VERSION: u32 = 0x030;
    /// Task priority.
    pub const TPR: u32 = 0x080;
    /// Arbitration priority (xAPIC only).
    pub const APR: u32 = 0x090;
    /// Processor priority.
    pub const PPR: u32 = 0x0a0;
    /// End of interrupt.
    pub const EOI: u32 = 0x0b0;
    /// Remote read (xAPIC only).
    pub const RRD: u32 = 0x0c0;
    /// Logical destination.
    pub const LDR: u32 = 0x0d0;
    /// Destination format (xAPIC only).
    pub const DFR: u32 = 0x0e0;
    /// Spurious-interrupt vector.
    pub const SVR: u32 = 0x0f0;
    /// In-service, eight registers 0x10 apart.
    pub const ISR: u32 = 0x100;
    /// Trigger mode, eight registers 0x10 apart.
    pub const TMR: u32 = 0x180;
    /// Interrupt request, eight registers 0x10 apart.
    pub const IRR: u32 = 0x200;
    /// Error status.
    pub const ESR: u32 = 0x280;
    /// LVT corrected machine-check interrupt.
    pub const LVT_CMCI: u32 = 0x2f0;
    /// Interrupt command, low half (the whole of it in x2APIC mode).
    pub const ICR_LOW: u32 = 0x300;
    /// Interrupt command, high half (xAPIC only).
    pub const ICR_HIGH: u32 = 0x310;
    /// LVT timer.
    pub const LVT_TIMER: u32 = 0x320;
    /// LVT thermal sensor.
    pub const LVT_THERMAL: u32 = 0x330;
    /// LVT performance counters.
    pub const LVT_PERF: u32 = 0x340;
    /// LVT LINT0.
    pub const LVT_LINT0: u32 = 0x350;
    /// LVT LINT1.
    pub const LVT_LINT1: u32 = 0x360;
    /// LVT error.
    pub const LVT_ERROR: u32 = 0x370;
    /// Timer initial count.
    pub const TIMER_INITIAL: u32 = 0x380;
    /// Timer current count.
    pub const TIMER_CURRENT: u32 = 0x390;
    /// Timer divide configuration.
    pub const TIMER_DIVIDE: u32 = 0x3e0;
    /// Self IPI (x2APIC only).
    pub const SELF_IPI: u32 = 0x3f0;
}

/// Delivery mode of a message, an LVT entry or a redirection entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DeliveryMode {
    /// To the destination's vector.
    Fixed = 0,
    /// To the one with the lowest priority among the destinations.
    LowestPriority = 1,
    /// System management interrupt.
    Smi = 2,
    /// Remote read in an ICR (reserved elsewhere).
    RemoteRead = 3,
    /// Non-maskable interrupt.
    Nmi = 4,
    /// INIT.
    Init = 5,
    /// Start-up (ICR only).
    StartUp = 6,
    /// Vector supplied by an external (8259A) controller.
    ExtInt = 7,
}

impl DeliveryMode {
    /// Decodes the three bits; every one of the eight values has a name, so this is `None` only for values above 7.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Fixed,
            1 => Self::LowestPriority,
            2 => Self::Smi,
            3 => Self::RemoteRead,
            4 => Self::Nmi,
            5 => Self::Init,
            6 => Self::StartUp,
            7 => Self::ExtInt,
            _ => return None,
        })
    }
}

/// Trigger mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TriggerMode {
    /// Edge.
    Edge,
    /// Level: needs an EOI that reaches the source.
    Level,
}

/// Destination shorthand of an ICR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shorthand {
    /// The destination field counts.
    None,
    /// The sender alone.
    Myself,
    /// Everyone.
    All,
    /// Everyone but the sender.
    AllButSelf,
}

/// The 64-bit interrupt command register. In xAPIC mode the destination is its top byte, in x2APIC mode its top half.
#[bitfield_struct::bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Icr {
    /// Vector.
    pub vector: u8,
    /// Delivery mode, raw.
    #[bits(3)]
    pub delivery_mode: u8,
    /// Destination mode: logical when set.
    pub logical: bool,
    /// Delivery status (read only; reserved in x2APIC mode).
    pub delivery_status: bool,
    __: bool,
    /// Level: assert when set; clear only in an INIT level de-assert.
    pub assert: bool,
    /// Trigger mode: level when set.
    pub level_triggered: bool,
    #[bits(2)]
    __: u8,
    /// Destination shorthand, raw.
    #[bits(2)]
    pub shorthand_bits: u8,
    #[bits(12)]
    __: u16,
    /// Destination field, 32 bits (xAPIC: the top 8).
    pub destination: u32,
}

impl Icr {
    /// Reserved bits of the low half in x2APIC mode: a write that sets one gives #GP.
    pub const X2APIC_RESERVED: u64 = 0xfff3_2000;

    /// The delivery mode.
    pub fn mode(self) -> DeliveryMode {
        // Three bits: always one of the eight.
        DeliveryMode::from_bits(self.delivery_mode()).unwrap_or(DeliveryMode::Fixed)
    }

    /// The destination shorthand.
    pub fn shorthand(self) -> Shorthand {
        match self.shorthand_bits() {
            0 => Shorthand::None,
            1 => Shorthand::Myself,
            2 => Shorthand::All,
            _ => Shorthand::AllButSelf,
        }
    }
}

/// Timer mode, LVT timer bits 18:17.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TimerMode {
    /// Counts down once.
    OneShot,
    /// Reloads the initial count.
    Periodic,
    /// Fires when the TSC reaches IA32_TSC_DEADLINE.
    TscDeadline,
    /// The encoding 11b.
    Reserved,
}

/// One local vector table register.
#[bitfield_struct::bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Lvt {
    /// Vector.
    pub vector: u8,
    /// Delivery mode, raw (not in timer and error entries).
    #[bits(3)]
    pub delivery_mode: u8,
    __: bool,
    /// Delivery status (read only).
    pub delivery_status: bool,
    /// Input pin polarity: low active when set (LINT0, LINT1).
    pub active_low: bool,
    /// Remote IRR (read only; LINT0, LINT1).
    pub remote_irr: bool,
    /// Trigger mode: level when set (LINT0, LINT1).
    pub level: bool,
    /// Masked when set.
    pub masked: bool,
    /// Timer mode, raw (timer entry only).
    #[bits(2)]
    pub timer_mode_bits: u8,
    #[bits(13)]
    __: u16,
}

impl Lvt {
    /// The delivery mode.
    pub fn mode(self) -> DeliveryMode {
        // Three bits: always one of the eight.
        DeliveryMode::from_bits(self.delivery_mode()).unwrap_or(DeliveryMode::Fixed)
    }

    /// The timer mode.
    pub fn timer_mode(self) -> TimerMode {
        match self.timer_mode_bits() {
            0 => TimerMode::OneShot,
            1 => TimerMode::Periodic,
            2 => TimerMode::TscDeadline,
            _ => TimerMode::Reserved,
        }
    }
}

/// Spurious-interrupt vector register.
#[bitfield_struct::bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Svr {
    /// Spurious vector.
    pub vector: u8,
    /// APIC software enable.
    pub enabled: bool,
    /// Focus processor checking off.
    pub focus_off: bool,
    #[bits(2)]
    __: u8,
    /// EOI-broadcast suppression.
    pub suppress_eoi_broadcast: bool,
    #[bits(19)]
    __: u32,
}

bitflags::bitflags! {
    /// Error status register (section "Error Handling").
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct Esr: u32 {
        /// A message was sent that no APIC accepted (P6 family only).
        const SEND_ACCEPT = 1 << 2;
        /// A message was received that no APIC accepted (P6 family only).
        const RECEIVE_ACCEPT = 1 << 3;
        /// Lowest-priority IPI where that is not supported.
        const REDIRECTABLE_IPI = 1 << 4;
        /// A message with an illegal vector (below 16) was sent.
        const SEND_ILLEGAL_VECTOR = 1 << 5;
        /// A message with an illegal vector was received, or an LVT entry has one.
        const RECEIVE_ILLEGAL_VECTOR = 1 << 6;
        /// A reserved register was accessed (xAPIC only).
        const ILLEGAL_REGISTER = 1 << 7;
    }
}

/// MSI address layout (section "Message Address Register Format"), low 32 bits.
#[bitfield_struct::bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct MsiAddress {
    #[bits(2)]
    __: u8,
    /// Destination mode: logical when set (counts only with the redirection hint).
    pub logical: bool,
    /// Redirection hint: to the lowest priority among the destinations.
    pub redirection_hint: bool,
    #[bits(1)]
    __: bool,
    /// Destination ID bits 14:8 (paravirtual extension), bits 11:5.
    #[bits(7)]
    pub ext_destination: u8,
    /// Destination ID bits 7:0.
    pub destination: u8,
    /// 0xfee for an interrupt message.
    #[bits(12)]
    pub prefix: u16,
}

/// The [`MsiAddress::prefix`] of an interrupt message.
pub const MSI_PREFIX: u16 = 0xfee;

/// MSI data layout (section "Message Data Register Format").
#[bitfield_struct::bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct MsiData {
    /// Vector.
    pub vector: u8,
    /// Delivery mode, raw.
    #[bits(3)]
    pub delivery_mode: u8,
    #[bits(3)]
    __: u8,
    /// Level: assert when set (level-triggered messages only).
    pub assert: bool,
    /// Trigger mode: level when set.
    pub level: bool,
    __: u16,
}
