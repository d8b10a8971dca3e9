//! I/O APIC.

use x86::apic::reg;

use super::{Difference, Quirk, Trace, before_6_3, everywhere, not_in_software, since_6_3};
use crate::apic::Op::{Accept, IoEoi, IoRead, IoWrite, Ipi, Line, Msi, Write};

/// What is known to differ there.
pub const LIST: &[Difference] = &[
    Difference {
        quirk: Quirk::IoApicIsOfVersion11,
        kvm: "The version is 0x11",
        why: "Intel ICH, \"Advanced Programmable Interrupt Controller\", version register: 0x20 has the EOI register",
        on: everywhere,
        trace: Trace::Apic(&[IoRead(0, 1)]),
    },
    Difference {
        quirk: Quirk::IoApicHasNoEoiRegister,
        kvm: "There is no EOI register",
        why: "Intel ICH, \"Advanced Programmable Interrupt Controller\", EOI register: clears remote IRR of entries with the \
              vector",
        on: everywhere,
        trace: Trace::Apic(&[
            Write(0, reg::SVR, 0x1ff),
            IoWrite(0, 0x10, 0x8031),
            Line(0, true),
            Line(0, false),
            IoEoi(0, 0x31),
        ]),
    },
    Difference {
        quirk: Quirk::IoApicHasNoDeliveryStatus,
        kvm: "Delivery status is always idle",
        why: "82093AA, \"I/O Redirection Table Registers\": send pending while the delivery is held up; ours shows a level \
              that nobody accepts",
        on: everywhere,
        trace: Trace::Apic(&[IoWrite(0, 0x10, 0x8031), Line(0, true)]),
    },
    Difference {
        quirk: Quirk::IoApicKeepsReservedBits,
        kvm: "Reserved bits of redirection entries read as written",
        why: "82093AA, \"I/O Redirection Table Registers\": reserved; they read 0",
        on: everywhere,
        trace: Trace::Apic(&[IoWrite(0, 0x10, 0x0103_0031)]),
    },
    Difference {
        quirk: Quirk::IoApicHasNoWideDestinations,
        kvm: "The 15-bit destinations of messages and redirection entries are not known",
        why: "Linux, Documentation/virt/kvm/x86/cpuid.rst, KVM_FEATURE_MSI_EXT_DEST_ID: the VMM's to offer; KVM's I/O APIC \
              has 8 bits",
        on: everywhere,
        trace: Trace::Apic(&[Write(0, reg::SVR, 0x1ff), Msi(0xfee0_0020, 0x31)]),
    },
    Difference {
        quirk: Quirk::IoApicSendsReservedModes,
        kvm: "Delivery mode 110b starts processors, and 111b (ExtINT) sends nothing",
        why: "82093AA, \"I/O Redirection Table Registers\": 110b is reserved, 111b runs the INTA cycle",
        on: everywhere,
        trace: Trace::Apic(&[Ipi(0, 1, 0x4500), Msi(0xfee0_1000, 0x0600)]),
    },
    Difference {
        quirk: Quirk::IoApicSendsLevelNmis,
        kvm: "A level-triggered NMI has a remote IRR, which no EOI will clear",
        why: "82093AA, \"I/O Redirection Table Registers\": NMI is treated as edge triggered even if programmed otherwise",
        on: everywhere,
        trace: Trace::Apic(&[IoWrite(0, 0x10, 0x8400), Line(0, true)]),
    },
    Difference {
        quirk: Quirk::IoApicEndsByNewVectorOnly,
        kvm: "After the vector of an entry in service was changed, only an EOI with the new one ends it",
        why: "82093AA, \"I/O Redirection Table Registers\": the EOI's vector is compared with the entry's. Ours takes the one \
              that was accepted as well: the handler knows no other, and the pin would be dead",
        on: everywhere,
        trace: Trace::Apic(&[
            Write(0, reg::SVR, 0x1ff),
            IoWrite(0, 0x10, 0x8031),
            Line(0, true),
            Accept(0),
            Line(0, false),
            IoWrite(0, 0x10, 0x8041),
            Write(0, reg::EOI, 0),
        ]),
    },
    Difference {
        quirk: Quirk::IoApicDoesNotTryAgain,
        kvm: "A level that nobody accepted is sent again when its line or entry changes, not when a local APIC does",
        why: "82093AA, \"I/O Redirection Table Registers\": the delivery status stays pending, and the bus tries again, until \
              the local APIC accepts",
        on: everywhere,
        trace: Trace::Apic(&[IoWrite(0, 0x10, 0x8031), Line(0, true), Write(0, reg::SVR, 0x1ff)]),
    },
    Difference {
        quirk: Quirk::IoApicSendsEdgesAtEois,
        kvm: "At the EOI of a level interrupt an edge pin that has the same vector and is high is sent again",
        why: "82093AA, \"I/O Redirection Table Registers\": an edge-triggered interrupt is a rise of its line",
        on: everywhere,
        trace: Trace::Apic(&[
            Write(0, reg::SVR, 0x1ff),
            IoWrite(0, 0x12, 0x0031),
            Line(1, true),
            Accept(0),
            Write(0, reg::EOI, 0),
            IoWrite(0, 0x10, 0x8031),
            Line(0, true),
            Line(0, false),
            Accept(0),
            Write(0, reg::EOI, 0),
        ]),
    },
    Difference {
        quirk: Quirk::IoApicHearsItsDestinationsOnly,
        kvm: "An EOI reaches the I/O APIC only from processors that a level entry with this vector goes to",
        why: "SDM vol. 3A, \"Signaling Interrupt Servicing Completion\": the EOI of a level interrupt is broadcast, and each \
              I/O APIC compares its vector",
        on: not_in_software,
        trace: Trace::Apic(&[
            Write(0, reg::SVR, 0x1ff),
            Write(2, reg::SVR, 0x1ff),
            Line(22, true),
            Msi(0xfee0_2000, 0xc051),
            IoWrite(1, 0x3c, 0x8051),
            Accept(0),
            Accept(2),
            Write(2, reg::EOI, 0),
        ]),
    },
    Difference {
        quirk: Quirk::IoApicReservedRegistersAreOnes,
        kvm: "Reserved registers read all ones",
        why: "82093AA, \"Register Description\": there is nothing to read; ours reads 0, as reserved bits do",
        on: everywhere,
        trace: Trace::Apic(&[IoRead(0, 0x0e)]),
    },
    Difference {
        quirk: Quirk::IoApicTakesNobodyForSomebody,
        kvm: "Where the logical IDs are not one bit each, a level message that is for nobody sets remote IRR, and the pin is dead",
        why: "82093AA, \"I/O Redirection Table Registers\": remote IRR is set when local APICs accept the level interrupt",
        on: since_6_3,
        trace: Trace::Apic(&[
            Write(1, reg::LDR, 0x0300_0000),
            Write(1, reg::SVR, 0x1ff),
            IoWrite(0, 0x11, 0x0400_0000),
            IoWrite(0, 0x10, 0x8831),
            Line(0, true),
        ]),
    },
    Difference {
        quirk: Quirk::IoApicTakesNobodyForSomebody,
        kvm: "Where nobody has a logical ID, a level message to one sets remote IRR, and the pin is dead",
        why: "82093AA, \"I/O Redirection Table Registers\": remote IRR is set when local APICs accept the level interrupt",
        on: before_6_3,
        trace: Trace::Apic(&[IoWrite(0, 0x10, 0x8800), Line(0, true)]),
    },
];
