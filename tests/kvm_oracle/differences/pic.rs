//! 8259A pair.

use irqchip::pic::PicPort::{ElcrMaster, MasterCommand, MasterData, SlaveData};

use super::{Difference, Quirk, Trace, everywhere};
use crate::pic::Op::{Acknowledge, Line, Read, Write};

/// What is known to differ there.
pub const LIST: &[Difference] = &[
    Difference {
        quirk: Quirk::PicEdgeOutlivesTheLine,
        kvm: "An edge stays requested when its line falls before the acknowledge",
        why: "8259A, \"Edge and Level Triggered Modes\": the inputs must remain high until after the falling edge of the \
              first INTA",
        on: everywhere,
        trace: Trace::Pic(&[Line(3, true), Line(3, false)]),
    },
    Difference {
        quirk: Quirk::PicCascadeIsPulsed,
        kvm: "The slave's INT is an edge at the master's input 2, which stays when the slave no longer asks",
        why: "82371AB (PIIX4), ICW3: the slave's INTR output is cascaded to input 2; 8259A, \"Edge and Level Triggered \
              Modes\": a request goes with its line",
        on: everywhere,
        trace: Trace::Pic(&[Line(9, true), Write(SlaveData, 0xff)]),
    },
    Difference {
        quirk: Quirk::PicElcrIsSeenLate,
        kvm: "A change of ELCR counts from the next change of the line on",
        why: "82371AB (PIIX4), ELCR1: in level mode the interrupt is recognised by a high level on the input",
        on: everywhere,
        trace: Trace::Pic(&[Line(4, true), Acknowledge, Write(ElcrMaster, 0x10)]),
    },
    Difference {
        quirk: Quirk::PicOutputLags,
        kvm: "Neither an initialisation nor a write of ELCR takes INTR away",
        why: "8259A, \"Initialization Command Words (ICWs)\": ICW1 resets the edge sense circuit; without a request there \
              is no INT",
        on: everywhere,
        trace: Trace::Pic(&[
            Line(3, true),
            Write(MasterCommand, 0x11),
            Write(MasterData, 0x30),
            Write(MasterData, 0x04),
            Write(MasterData, 0x01),
            Acknowledge,
        ]),
    },
    Difference {
        quirk: Quirk::PicIcw1KeepsIsr,
        kvm: "ICW1 keeps the in-service register",
        why: "8259A, \"Initialization Command Words (ICWs)\" does not name ISR; an initialised chip that holds back \
              requests for something of before would be no initialised chip",
        on: everywhere,
        trace: Trace::Pic(&[Line(3, true), Acknowledge, Write(MasterCommand, 0x11)]),
    },
    Difference {
        quirk: Quirk::PicIcw1KeepsModes,
        kvm: "After an ICW1 that announces an ICW4, automatic EOI and special fully nested mode hold until it comes, and \
              rotation in automatic EOI for good",
        why: "8259A, \"Initialization Command Words (ICWs)\": the sequence starts from nothing; what ICW4 sets is not set \
              before it",
        on: everywhere,
        trace: Trace::Pic(&[
            Write(MasterCommand, 0x11),
            Write(MasterData, 0x30),
            Write(MasterData, 0x04),
            Write(MasterData, 0x03),
            Write(MasterCommand, 0x11),
        ]),
    },
    Difference {
        quirk: Quirk::PicNoSingleMode,
        kvm: "SNGL is ignored: ICW3 is expected",
        why: "8259A, \"Initialization Command Words (ICWs)\": with SNGL no ICW3 is issued",
        on: everywhere,
        trace: Trace::Pic(&[Write(MasterCommand, 0x13), Write(MasterData, 0x30)]),
    },
    Difference {
        quirk: Quirk::PicNoLevelMode,
        kvm: "LTIM is ignored",
        why: "8259A, \"Edge and Level Triggered Modes\": LTIM = 1 makes the inputs level triggered",
        on: everywhere,
        trace: Trace::Pic(&[
            Write(MasterCommand, 0x19),
            Write(MasterData, 0x30),
            Write(MasterData, 0x04),
            Write(MasterData, 0x01),
            Line(3, true),
            Acknowledge,
        ]),
    },
    Difference {
        quirk: Quirk::PicNoSpecialMask,
        kvm: "Special mask mode is stored and does nothing",
        why: "8259A, \"Special Mask Mode\": it enables interrupts from all other levels that are not masked",
        on: everywhere,
        trace: Trace::Pic(&[
            Line(1, true),
            Acknowledge,
            Write(MasterData, 0x02),
            Line(5, true),
            Write(MasterCommand, 0x68),
            Acknowledge,
        ]),
    },
    Difference {
        quirk: Quirk::PicPollAnswer,
        kvm: "A poll's answer lacks bit 7, is 7 without a request, and puts nothing in service",
        why: "8259A, \"Poll Command\": the read sets the appropriate IS bit; bit 7 says whether there is a request",
        on: everywhere,
        trace: Trace::Pic(&[Line(3, true), Write(MasterCommand, 0x0c), Read(MasterCommand)]),
    },
    Difference {
        quirk: Quirk::PicCascadeIsFixed,
        kvm: "ICW3 is ignored: the slave is on input 2, whatever was programmed",
        why: "8259A, \"Initialization Command Words (ICWs)\", ICW3: a 1 is set for each slave in the system",
        on: everywhere,
        trace: Trace::Pic(&[
            Write(MasterCommand, 0x11),
            Write(MasterData, 0x30),
            Write(MasterData, 0x08),
            Write(MasterData, 0x01),
            Line(9, true),
            Acknowledge,
        ]),
    },
    Difference {
        quirk: Quirk::PicServesUninitialised,
        kvm: "Requests are served in the middle of an initialisation",
        why: "8259A, \"Operation Command Words (OCWs)\": after the ICWs the chip is ready to accept interrupt requests",
        on: everywhere,
        trace: Trace::Pic(&[Write(MasterCommand, 0x11), Line(3, true), Acknowledge]),
    },
    Difference {
        quirk: Quirk::PicNestsBelowTheSlave,
        kvm: "In special fully nested mode a slave in service does not hold back the master's lower inputs",
        why: "8259A, \"The Special Fully Nested Mode\": the slave is not locked out by the master; the order of priority \
              stays",
        on: everywhere,
        trace: Trace::Pic(&[
            Write(MasterCommand, 0x11),
            Write(MasterData, 0x30),
            Write(MasterData, 0x04),
            Write(MasterData, 0x11),
            Line(9, true),
            Acknowledge,
            Line(3, true),
            Acknowledge,
        ]),
    },
];
