//! The monitor: a few commands for the user at the console (Ctrl-A c), while the guest runs on.
//!
//! Runs on the main loop. Chips with a lock are copied under it and shown without; a local APIC is its vCPU's, so the
//! vCPU is asked, and has [`PATIENCE`] to answer.

mod chips;
mod lapic;
mod questions;
#[cfg(test)]
mod tests;

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use bottom_half::System;
use irqchip::ioapic::State as IoApicState;
use irqchip::line::Wire;
use irqchip::pic::State as PicState;

use crate::console::{Reply, Then};
use crate::interrupts::ChipLedger;
use crate::power::PowerButton;
use crate::stats::{Books, Moment};
use crate::stop::{StopReason, Stopper};
pub use questions::{Answer, ApicRegisters, Questions};

/// How long a vCPU may take to answer. Longer than any exit takes; a vCPU that is stuck does not stop the monitor.
pub const PATIENCE: Duration = Duration::from_secs(2);

const HELP: &str = "\
irq         interrupts: lines, counts by vector and vCPU, exits, the ledger, bottom halves
lapic N     local APIC of vCPU N
ioapic      I/O APIC with its redirection table
pic         the 8259A pair
vcpu        where each vCPU is
softirq     bottom halves: what each CPU has run, the last is the main loop's; work queues
nmi N       send vCPU N an NMI
reset       reset the machine
powerdown   press the power button
quit        end the program (also Ctrl-A x)
cont        back to the guest (also Ctrl-A c)
";

/// The chips that are in this program.
pub trait Chips: Send + Sync {
    /// The 8259A pair.
    fn pic(&self) -> PicState;
    /// The I/O APIC.
    fn ioapic(&self) -> IoApicState;
    /// Their accounts.
    fn ledger(&self) -> ChipLedger;
}

/// Writes to the log what the PIC and the I/O APIC hold.
pub fn log_chips(chips: &dyn Chips) {
    let text = chips::pic(&chips.pic()) + &chips::pins_in_use(&chips.ioapic());
    text.lines().for_each(|line| log::info!("{line}"));
}

/// What the commands work on.
pub struct Monitor<'a> {
    /// How to end the machine.
    pub stopper: Arc<Stopper>,
    /// The power button.
    pub power_button: PowerButton,
    /// The lines, by GSI.
    pub wires: Vec<Arc<Wire>>,
    /// PIC and I/O APIC; `None` if they are KVM's.
    pub chips: Option<Arc<dyn Chips>>,
    /// What the vCPUs are asked.
    pub questions: &'a Questions,
    /// Has a vCPU look up from what it does.
    pub attention: &'a dyn Fn(usize),
    /// Sends a vCPU an NMI.
    pub nmi: &'a dyn Fn(usize),
    /// The machine's bottom halves.
    pub bottom_halves: System,
    /// Its ledger and counters.
    pub books: Books,
    /// How long a vCPU may take to answer: [`PATIENCE`].
    pub patience: Duration,
}

impl Monitor<'_> {
    /// Executes one line.
    pub fn execute(&self, line: &str) -> Reply {
        log::trace!("command {line:?}");
        let words: Vec<&str> = line.split_whitespace().collect();
        let (text, then) = match *words.as_slice() {
            [] => (String::new(), Then::Stay),
            ["help" | "?"] => (HELP.to_owned(), Then::Stay),
            ["cont" | "c"] => (String::new(), Then::Close),
            ["quit" | "q"] => (String::new(), Then::Quit),
            ["reset"] => {
                self.stopper.stop(StopReason::Reset);
                (String::new(), Then::Close)
            }
            ["powerdown"] => {
                self.power_button.press();
                ("the power button was pressed\n".to_owned(), Then::Stay)
            }
            ["irq"] => (self.interrupts(), Then::Stay),
            ["ioapic"] => (self.chip(|chips| chips::ioapic(&chips.ioapic())), Then::Stay),
            ["pic"] => (self.chip(|chips| chips::pic(&chips.pic())), Then::Stay),
            ["vcpu"] => (self.vcpus(), Then::Stay),
            ["softirq"] => (self.bottom_halves.tables(), Then::Stay),
            ["lapic", number] => (self.with_vcpu(number, |index| self.lapic(index)), Then::Stay),
            ["nmi", number] => (self.with_vcpu(number, |index| self.send_nmi(index)), Then::Stay),
            ["lapic" | "nmi"] => (format!("{line} of which vCPU? give its number\n"), Then::Stay),
            [command, ..] if HELP.lines().any(|help| help.split(' ').next() == Some(command)) => {
                (format!("{command} takes no {:?}; see 'help'\n", words[1..].join(" ")), Then::Stay)
            }
            [command, ..] => (format!("there is no command {command:?}; see 'help'\n"), Then::Stay),
        };
        Reply { text, then }
    }

    fn interrupts(&self) -> String {
        let lines = chips::lines(&self.wires, self.chips.as_deref());
        let table = self.books.snapshot(Moment::Running).table();
        [lines, table, self.bottom_halves.tables()].join("\n")
    }

    fn chip(&self, show: impl FnOnce(&dyn Chips) -> String) -> String {
        self.chips.as_deref().map_or_else(|| "it is KVM's in this mode\n".to_owned(), show)
    }

    fn with_vcpu(&self, number: &str, show: impl FnOnce(usize) -> String) -> String {
        let last = self.questions.vcpus() - 1;
        match number.parse() {
            Ok(index) if index <= last => show(index),
            _ => format!("there is no vCPU {number:?}; give 0 to {last}\n"),
        }
    }

    fn send_nmi(&self, index: usize) -> String {
        (self.nmi)(index);
        format!("vCPU {index} was sent an NMI\n")
    }

    fn lapic(&self, index: usize) -> String {
        match self.questions.ask(&[index], self.patience, self.attention).pop().flatten() {
            Some(Answer { apic: Some(apic), .. }) => lapic::show(index, &apic),
            Some(Answer { apic: None, .. }) => "it is KVM's, which does not show it\n".to_owned(),
            None => no_answer(index),
        }
    }

    fn vcpus(&self) -> String {
        let all: Vec<usize> = (0..self.questions.vcpus()).collect();
        let answers = self.questions.ask(&all, self.patience, self.attention);
        let mut text = String::new();
        for (index, answer) in answers.into_iter().enumerate() {
            match answer {
                // Writing to a String can't fail.
                Some(answer) => drop(writeln!(text, "{}", answer.summary)),
                None => text.push_str(&no_answer(index)),
            }
        }
        text
    }
}

fn no_answer(index: usize) -> String {
    format!("vCPU {index} does not answer: it is stuck in something, or has ended\n")
}
