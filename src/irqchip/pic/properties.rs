//! What holds for the pair whatever a guest and the devices do.

use super::PicPort::*;
use super::*;
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Write(PicPort, u8),
    Read(PicPort),
    Line(u8, bool),
    Acknowledge,
    /// A well-formed initialisation, which random writes seldom are: bases and ICW4s.
    Initialise([u8; 2], [u8; 2]),
    Reset,
}

fn port() -> impl Strategy<Value = PicPort> {
    prop::sample::select(vec![MasterCommand, MasterData, SlaveCommand, SlaveData, ElcrMaster, ElcrSlave])
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (port(), any::<u8>()).prop_map(|(port, value)| Step::Write(port, value)),
        // OCWs only: no ICW1, whose sequence would swallow what follows.
        8 => (port(), any::<u8>()).prop_map(|(port, value)| Step::Write(port, value & 0xef)),
        4 => port().prop_map(Step::Read),
        16 => (0..20u8, any::<bool>()).prop_map(|(input, level)| Step::Line(input, level)),
        8 => Just(Step::Acknowledge),
        3 => any::<([u8; 2], [u8; 2])>().prop_map(|(bases, icw4)| Step::Initialise(bases, icw4)),
        1 => Just(Step::Reset),
    ]
}

/// Every input but the cascade.
fn wired_input() -> impl Strategy<Value = u8> {
    prop_oneof![0..CASCADE_IRQ, CASCADE_IRQ + 1..16]
}

fn initialise(pic: &mut PicPair, bases: [u8; 2], icw4: [u8; 2]) {
    for ((command, data, icw3), (base, icw4)) in
        [(MasterCommand, MasterData, 4), (SlaveCommand, SlaveData, 2)].into_iter().zip(bases.into_iter().zip(icw4))
    {
        pic.write(command, 0x11);
        [base, icw3, icw4].into_iter().for_each(|word| pic.write(data, word));
    }
}

/// An acknowledge gives one of the vectors that the guest has set up, and one for a request that is there.
fn acknowledge(pic: &mut PicPair) -> Result<(), TestCaseError> {
    let before = pic.clone();
    let vector = pic.acknowledge();
    let requests = before.master.irr() & !before.master.imr();
    if !before.output() {
        prop_assert_eq!(vector, before.master.vector_base() | 7);
        prop_assert_eq!(pic.master.isr(), before.master.isr());
        return Ok(());
    }
    prop_assert!(requests != 0);
    let handed_over = |answered: bool| {
        (0..8).any(|input| {
            requests & 1 << input != 0 && before.master.has_slave(input) && before.slave.is_slave_on(input) == answered
        })
    };
    let level = vector & 7;
    let from_master = vector & 0xf8 == before.master.vector_base() && requests & 1 << level != 0;
    let slave_asked = before.slave.irr() & !before.slave.imr() & 1 << level != 0;
    let from_slave = handed_over(true)
        && vector & 0xf8 == before.slave.vector_base()
        && (slave_asked || level == 7 && !before.slave.output());
    let from_nobody = handed_over(false) && vector == FLOATING_BUS;
    prop_assert!(from_master || from_slave || from_nobody, "vector {vector:#x}");
    Ok(())
}

/// A chip that is ready and has nothing in service has INT high just when something unmasked asks.
fn no_request_is_lost(chip: &Pic8259) -> Result<(), TestCaseError> {
    let asks = chip.irr() & !chip.imr() != 0;
    if chip.is_ready() && chip.isr() == 0 {
        prop_assert_eq!(chip.output(), asks);
    } else {
        prop_assert!(!chip.output() || chip.is_ready() && asks);
    }
    Ok(())
}

proptest! {
    #[test]
    fn requests_are_neither_lost_nor_made_up(steps in prop::collection::vec(step(), 1..200)) {
        let mut pic = PicPair::new();
        let mut lines = 0u32;
        for step in steps {
            match step {
                Step::Write(port, value) => pic.write(port, value),
                Step::Read(port) => {
                    pic.read(port);
                }
                Step::Line(input, level) => {
                    pic.set_line(input, level);
                    lines = lines & !(1 << input) | u32::from(level) << input;
                }
                Step::Acknowledge => acknowledge(&mut pic)?,
                Step::Initialise(bases, icw4) => initialise(&mut pic, bases, icw4),
                Step::Reset => pic.reset(),
            }
            no_request_is_lost(&pic.master)?;
            no_request_is_lost(&pic.slave)?;
            // No request without its line, in either trigger mode; input 2 is the slave's INT.
            let cascade = u32::from(pic.slave.output()) << CASCADE_IRQ;
            prop_assert_eq!(u32::from(pic.master.irr()) & !(lines & !(1 << CASCADE_IRQ) | cascade) & 0xff, 0);
            prop_assert_eq!(u32::from(pic.slave.irr()) & !(lines >> 8) & 0xff, 0);
            prop_assert_eq!(pic.master.elcr() & !ELCR_MASTER_MASK, 0);
            prop_assert_eq!(pic.slave.elcr() & !ELCR_SLAVE_MASK, 0);
        }
    }

    /// After any past, a guest that initialises the pair as Linux does gets every edge, once, in order.
    #[test]
    fn initialisation_leaves_no_trace_of_the_past(steps in prop::collection::vec(step(), 1..100), input in wired_input()) {
        let mut pic = PicPair::new();
        for step in steps {
            match step {
                Step::Write(port, value) => pic.write(port, value),
                Step::Line(input, level) => pic.set_line(input, level),
                Step::Acknowledge => acknowledge(&mut pic)?,
                _ => {}
            }
        }
        pic.write(ElcrMaster, 0);
        pic.write(ElcrSlave, 0);
        initialise(&mut pic, [0x20, 0x28], [1, 1]);
        prop_assert!(!pic.output());
        pic.set_line(input, false);
        pic.set_line(input, true);
        prop_assert_eq!(pic.acknowledge(), 0x20 + input);
        prop_assert!(!pic.output());
    }
}
