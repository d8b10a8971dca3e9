//! How the monitor asks a vCPU about itself: a question in its slot, and attention; the vCPU's thread answers.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// What a vCPU says of itself.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Where it is, one line.
    pub summary: String,
    /// Its local APIC, if that can be had.
    pub apic: Option<ApicRegisters>,
}

/// A local APIC, to be shown.
#[derive(Debug, Clone)]
pub struct ApicRegisters {
    /// IA32_APIC_BASE.
    pub base: u64,
    /// The registers by their offset in the xAPIC page, divided by 16; the ID as its mode shows it.
    pub page: [u32; 64],
    /// IA32_TSC_DEADLINE.
    pub tsc_deadline: u64,
}

/// Who asked, and is to be answered.
pub struct Asker {
    index: usize,
    answers: Sender<(usize, Answer)>,
}

impl Asker {
    /// Answers.
    pub fn answer(self, answer: Answer) {
        // Who has lost patience does not listen any more.
        let _ = self.answers.send((self.index, answer));
    }
}

/// A slot for each vCPU.
pub struct Questions {
    /// Leaf locks.
    slots: Box<[Mutex<Option<Asker>>]>,
}

impl Questions {
    /// For `vcpus` vCPUs.
    pub fn new(vcpus: usize) -> Self {
        Self { slots: (0..vcpus).map(|_| Mutex::new(None)).collect() }
    }

    /// How many vCPUs there are.
    pub fn vcpus(&self) -> usize {
        self.slots.len()
    }

    /// The question to vCPU `index`, which has been told to look up; `None` if it was for something else.
    pub fn take(&self, index: usize) -> Option<Asker> {
        self.slots[index].lock().take()
    }

    /// Asks the vCPUs with these indexes, and waits for `patience` at most; their answers in the same order, `None` from
    /// those who gave none. Never called by a vCPU's thread.
    pub fn ask(&self, vcpus: &[usize], patience: Duration, attention: &dyn Fn(usize)) -> Vec<Option<Answer>> {
        let (answers, receiver) = channel();
        for &index in vcpus {
            // A question that was not answered in time is forgotten.
            *self.slots[index].lock() = Some(Asker { index, answers: answers.clone() });
            attention(index);
        }
        drop(answers);
        collect(vcpus, &receiver, Instant::now() + patience)
    }
}

fn collect(vcpus: &[usize], receiver: &Receiver<(usize, Answer)>, end: Instant) -> Vec<Option<Answer>> {
    let mut answers = vec![None; vcpus.len()];
    while answers.iter().any(Option::is_none) {
        // Nobody answers any more, or not in time.
        let Ok((from, answer)) = receiver.recv_timeout(end.saturating_duration_since(Instant::now())) else { break };
        if let Some(at) = vcpus.iter().position(|&index| index == from) {
            answers[at] = Some(answer);
        }
    }
    answers
}
