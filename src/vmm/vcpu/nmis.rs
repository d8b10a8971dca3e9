//! A vCPU's NMIs on their way from its mailbox and its LVT entries to KVM, and their account.

use irqchip::ledger::Account;

/// The most that are given at once: one that the processor takes, and one that it holds (Intel SDM vol. 3A, section "Handling
/// Multiple NMIs"). Whether it is in an NMI handler, and so how many of them it can hold, KVM knows.
const MOST: u64 = 2;

/// Those that wait.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Nmis {
    waiting: u64,
    /// All that came; *delivered* were given to KVM.
    pub account: Account,
    /// Among them, those from the mailbox.
    pub posted: u64,
}

impl Nmis {
    /// So many have been taken from the mailbox. A processor that waits for a start-up message (`started` is false) has no
    /// handler for them.
    pub fn post(&mut self, nmis: u8, started: bool) {
        let nmis = u64::from(nmis);
        self.posted += nmis;
        self.account.asserted += nmis;
        *if started { &mut self.waiting } else { &mut self.account.dropped.not_started } += nmis;
    }

    /// INIT: none waits any more.
    pub fn reset(&mut self) {
        self.account.dropped.reset += std::mem::take(&mut self.waiting);
    }

    /// Takes those that wait, and the local APIC's (`lvt`): how many there are to give.
    pub fn take(&mut self, lvt: bool) -> u64 {
        self.account.asserted += u64::from(lvt);
        let all = std::mem::take(&mut self.waiting) + u64::from(lvt);
        let given = all.min(MOST);
        self.account.merged += all - given;
        self.account.delivered += given;
        given
    }

    /// How many wait.
    pub fn waiting(&self) -> u64 {
        self.waiting
    }
}
