//! Local APICs and messages.

use x86::apic::reg;

use super::{
    Difference, Quirk, Trace, before_6_3, before_6_12, everywhere, in_software, since_6_3, with_svm, without_svm,
};
use crate::apic::Op::{Accept, Ipi, Msi, Read, Write, WriteCr8, WriteMsr};
use crate::apic::{BASE, msr};

/// What is known to differ there.
pub const LIST: &[Difference] = &[
    Difference {
        quirk: Quirk::ApicLint0IsOpenAfterReset,
        kvm: "After reset and INIT LINT0 of the bootstrap processor is unmasked, in ExtINT mode",
        why: "SDM vol. 3A, \"Local APIC State After Power-Up or Reset\": the mask bits of the LVT are set. Firmware opens \
              LINT0, and KVM keeps a quirk for firmware that forgot to",
        on: everywhere,
        trace: Trace::Apic(&[Read(0, reg::LVT_LINT0)]),
    },
    Difference {
        quirk: Quirk::ApicHasNoEoiSuppression,
        kvm: "Suppression of EOI broadcasts is not offered (version register, bit 24) and SVR has no bit 12",
        why: "SDM vol. 3A, \"Local APIC Version Register\", \"Spurious Interrupt\": our I/O APIC has the EOI \
              register that it needs",
        on: everywhere,
        trace: Trace::Apic(&[Write(0, reg::SVR, 0x11ff)]),
    },
    Difference {
        quirk: Quirk::ApicHasNoErrors,
        kvm: "ESR is always 0, and there is no error interrupt",
        why: "SDM vol. 3A, \"Error Handling\"",
        on: everywhere,
        trace: Trace::Apic(&[Ipi(0, 1, 0x4005), Write(0, reg::ESR, 0)]),
    },
    Difference {
        quirk: Quirk::ApicHasNoArbitrationPriority,
        kvm: "The arbitration priority reads 0",
        why: "SDM vol. 3A, \"Lowest Priority Delivery Mode\"",
        on: everywhere,
        trace: Trace::Apic(&[Write(0, reg::TPR, 0x40), Read(0, reg::APR)]),
    },
    Difference {
        quirk: Quirk::ApicIcrKeepsReservedBits,
        kvm: "In xAPIC mode the reserved bits of ICR read as written",
        why: "SDM vol. 3A, \"Interrupt Command Register (ICR)\": reserved; they read 0, as elsewhere",
        on: everywhere,
        trace: Trace::Apic(&[Ipi(0, 7, 0x10_4031)]),
    },
    Difference {
        quirk: Quirk::ApicInitKeepsHalfOfIcr,
        kvm: "In x2APIC mode INIT keeps the upper half of ICR (older kernels)",
        why: "SDM vol. 3A, \"Local APIC State After It Has Received an INIT Reset\": all registers but the ID are as after reset",
        on: before_6_12,
        trace: Trace::Apic(&[WriteMsr(1, BASE, 0xfee0_0c00), Ipi(1, 7, 0x4031), Ipi(0, 1, 0x4500)]),
    },
    Difference {
        quirk: Quirk::ApicLvtStatusIsWritable,
        kvm: "Delivery status and remote IRR of LVT entries read as written",
        why: "SDM vol. 3A, \"Local Vector Table\": delivery status (read only), remote IRR flag (read only)",
        on: everywhere,
        trace: Trace::Apic(&[Write(0, reg::LVT_LINT1, 0x1_1000)]),
    },
    Difference {
        quirk: Quirk::ApicTableHasOnePlaceForABit,
        kvm: "In xAPIC mode only the lowest bit of a logical ID counts, and for one processor only (older kernels)",
        why: "SDM vol. 3A, \"Logical Destination Mode\": any bit that both have is a match, for all that have one",
        on: before_6_3,
        trace: Trace::Apic(&[Write(1, reg::LDR, 0x0300_0000), Write(1, reg::SVR, 0x1ff), Msi(0xfee0_2004, 0x31)]),
    },
    Difference {
        quirk: Quirk::ApicTakesIllegalVectors,
        kvm: "A message with a vector below 16 sets its bit in IRR, where it stays",
        why: "SDM vol. 3A, \"Error Handling\": the local APIC will never set an IRR bit in the range 0 - 15",
        on: everywhere,
        trace: Trace::Apic(&[Write(0, reg::SVR, 0x1ff), Msi(0xfee0_0000, 0x0005)]),
    },
    Difference {
        quirk: Quirk::ApicIdIsWritable,
        kvm: "In xAPIC mode the ID can be written",
        why: "SDM vol. 3A, \"Local APIC ID\": whether it can is model specific",
        on: everywhere,
        trace: Trace::Apic(&[Write(0, reg::ID, 0x0500_0000)]),
    },
    Difference {
        quirk: Quirk::ApicBspFlagIsWritable,
        kvm: "The BSP flag of IA32_APIC_BASE can be written",
        why: "SDM vol. 3A, \"Local APIC Status and Location\": it indicates if the processor is the bootstrap processor, \
              which writing does not change",
        on: everywhere,
        trace: Trace::Apic(&[WriteMsr(0, BASE, 0xfee0_0800)]),
    },
    Difference {
        quirk: Quirk::ApicDisabledKeepsItsRegisters,
        kvm: "A globally disabled APIC keeps its registers",
        why: "SDM vol. 3A, \"Enabling or Disabling the Local APIC\": it may return to the state after power-up; ours does",
        on: everywhere,
        trace: Trace::Apic(&[Write(0, reg::TPR, 0x20), WriteMsr(0, BASE, 0xfee0_0100)]),
    },
    Difference {
        quirk: Quirk::ApicX2ReservedBits,
        kvm: "In x2APIC mode reserved bits in the lower halves of TPR, EOI, SVR, the LVT and the divide configuration are \
              ignored",
        why: "SDM vol. 3A, \"Reserved Bit Checking\": a WRMSR that sets them raises #GP",
        on: everywhere,
        trace: Trace::Apic(&[WriteMsr(0, BASE, 0xfee0_0d00), WriteMsr(0, msr(reg::TPR), 0x100)]),
    },
    Difference {
        quirk: Quirk::ApicSendsInvalidCombinations,
        kvm: "IPIs of all delivery modes go to the sender by shorthand",
        why: "SDM vol. 3A, \"Interrupt Command Register (ICR)\", table of valid combinations for Pentium 4 and Xeon \
              processors: self and all including self go with fixed only",
        on: everywhere,
        trace: Trace::Apic(&[Ipi(0, 0, 0x8_4400)]),
    },
    Difference {
        quirk: Quirk::ApicSendsLevelIpis,
        kvm: "The trigger mode of ICR makes an IPI a level interrupt at its receiver, and a de-assertion of it nothing",
        why: "SDM vol. 3A, \"Interrupt Command Register (ICR)\": the trigger mode is ignored but for INIT level de-assert",
        on: everywhere,
        trace: Trace::Apic(&[Write(1, reg::SVR, 0x1ff), Ipi(0, 1, 0xc031)]),
    },
    Difference {
        quirk: Quirk::ApicLowestPriorityGoesByVector,
        kvm: "Among several destinations the vector decides, not the priorities (module parameter vector_hashing)",
        why: "SDM vol. 3A, \"Lowest Priority Delivery Mode\": the processor with the lowest priority accepts",
        on: everywhere,
        trace: Trace::Apic(&[
            Write(0, reg::LDR, 0x0100_0000),
            Write(1, reg::LDR, 0x0200_0000),
            Write(0, reg::SVR, 0x1ff),
            Write(1, reg::SVR, 0x1ff),
            Msi(0xfee0_300c, 0x31),
            Msi(0xfee0_300c, 0x33),
        ]),
    },
    Difference {
        quirk: Quirk::ApicCr8OfTheSameClass,
        kvm: "MOV to CR8 clears the sub-class of TPR, whatever is written",
        why: "SDM vol. 3A, \"Interaction of Task Priorities between CR8 and APIC\": so it is. KVM without its own local APIC \
              does not tell of a MOV of the value that CR8 has: ours can't know",
        on: without_svm,
        trace: Trace::Apic(&[Write(0, reg::TPR, 0x25), WriteCr8(0, 2)]),
    },
    Difference {
        quirk: Quirk::SvmTprHasNoSubclass,
        kvm: "On AMD, TPR loses its sub-class at the next exit: KVM gets it back through the virtual interrupt control",
        why: "APM vol. 2, \"Task Priority Register\": TPR has all eight bits",
        on: with_svm,
        trace: Trace::Apic(&[Write(0, reg::TPR, 0x25)]),
    },
    Difference {
        quirk: Quirk::SoftwareEndsWhatItDelivers,
        kvm: "KVM without hardware virtualization ends an interrupt when it is taken: it is never in service",
        why: "SDM vol. 3A, \"Interrupt Acceptance for Fixed Interrupts\": the ISR bit is set when it is dispatched, and cleared \
              by the EOI",
        on: in_software,
        trace: Trace::Apic(&[Write(0, reg::SVR, 0x1ff), Msi(0xfee0_0000, 0x31), Accept(0)]),
    },
    Difference {
        quirk: Quirk::MsiDeassertIsSent,
        kvm: "A level message that says de-assert is an interrupt",
        why: "SDM vol. 3A, \"Message Data Register Format\": level 0 is de-assert",
        on: everywhere,
        trace: Trace::Apic(&[Write(0, reg::SVR, 0x1ff), Msi(0xfee0_0000, 0x8031)]),
    },
    Difference {
        quirk: Quirk::MsiHintChoosesForNmis,
        kvm: "The redirection hint chooses one destination for NMIs and INITs too, and none that is software-disabled",
        why: "SDM vol. 3A, \"Message Address Register Format\": the hint asks for the lowest interrupt priority, which those \
              have not to do with; \"Local APIC State After It Has Been Software Disabled\": they are taken",
        on: everywhere,
        trace: Trace::Apic(&[Msi(0xfeef_f008, 0x400)]),
    },
    Difference {
        quirk: Quirk::ApicLogicalMissesTheDisabled,
        kvm: "A software-disabled APIC gets no NMI, INIT or start-up that is sent by its logical ID",
        why: "SDM vol. 3A, \"Local APIC State After It Has Been Software Disabled\": it responds normally to INIT, NMI, SMI and \
              SIPI messages",
        on: since_6_3,
        trace: Trace::Apic(&[Write(1, reg::LDR, 0x0200_0000), Msi(0xfee0_2004, 0x0400)]),
    },
    Difference {
        quirk: Quirk::ApicLogicalMissesTheDisabled,
        kvm: "The same, while another APIC is software-enabled",
        why: "SDM vol. 3A, \"Local APIC State After It Has Been Software Disabled\": it responds normally to INIT, NMI, SMI and \
              SIPI messages",
        on: before_6_3,
        trace: Trace::Apic(&[
            Write(0, reg::LDR, 0x0100_0000),
            Write(1, reg::LDR, 0x0200_0000),
            Write(1, reg::SVR, 0x1ff),
            Msi(0xfee0_1004, 0x0400),
        ]),
    },
    Difference {
        quirk: Quirk::ApicBroadcastStaysInItsMode,
        kvm: "An IPI to 0xff or 0xffffffff does not reach those in the other of xAPIC and x2APIC mode",
        why: "SDM vol. 3A, \"Physical Destination Mode\": a broadcast to all local APICs",
        on: everywhere,
        trace: Trace::Apic(&[WriteMsr(1, BASE, 0xfee0_0c00), Write(1, reg::SVR, 0x1ff), Ipi(2, 0xff, 0x4040)]),
    },
    Difference {
        quirk: Quirk::ApicOddModelsAreClusters,
        kvm: "A destination format that is neither flat nor cluster is cluster",
        why: "SDM vol. 3A, \"Logical Destination Mode\": there are two models; with another value ours matches nothing",
        on: everywhere,
        trace: Trace::Apic(&[
            Write(1, reg::LDR, 0x0200_0000),
            Write(1, reg::SVR, 0x1ff),
            Write(1, reg::DFR, 0x4fff_ffff),
            Msi(0xfee0_2004, 0x0031),
        ]),
    },
    Difference {
        quirk: Quirk::ApicLogicalGoesByIdInMixedModes,
        kvm: "While some local APICs are in x2APIC mode, a logical destination finds those in xAPIC mode by their ID, whatever \
              their LDR is",
        why: "SDM vol. 3A, \"Logical Destination Mode\": the destination is compared with LDR",
        on: everywhere,
        trace: Trace::Apic(&[
            WriteMsr(1, BASE, 0xfee0_0c00),
            Write(1, reg::SVR, 0x1ff),
            Write(2, reg::SVR, 0x1ff),
            Msi(0xfee0_4004, 0x31),
        ]),
    },
];
