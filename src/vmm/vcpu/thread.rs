//! A vCPU's thread, whoever has its local APIC: from its start to its end.

use std::sync::Arc;

use log::Level;

use super::Shared;
use crate::Error;
use crate::stop::StopReason;

/// A vCPU, to be run by one thread.
pub trait Processor: Send {
    /// Its number.
    fn index(&self) -> usize;
    /// KVM's vCPU.
    fn cpu(&mut self) -> &mut kvm::Vcpu;
    /// The rest of the machine.
    fn shared(&self) -> &Arc<Shared>;
    /// Runs it until the machine stops.
    fn run_loop(&mut self) -> Result<(), StopReason>;
    /// Where it is, one line.
    fn summary(&self) -> String;
    /// Publishes its ledger, if it has one, for the last time.
    fn close_ledger(&self) {}
}

/// Runs the vCPU on the calling thread until the machine stops. Calls `ready` when the thread can be kicked.
pub fn run(mut processor: Box<dyn Processor>, ready: impl FnOnce()) {
    let (index, shared) = (processor.index(), Arc::clone(processor.shared()));
    sys::thread::set_name(&format!("vcpu{index}"));
    let registered = processor.cpu().register_kick();
    shared.processors.attach_thread(index);
    sys::calls::count_in(Arc::clone(&shared.processors.counts(index).calls));
    ready();
    let ended = match registered {
        Ok(_guard) => processor.run_loop(),
        Err(e) => Err(StopReason::Host(Error::from(e))),
    };
    processor.close_ledger();
    let level = if shared.stopper.has_failed() { Level::Info } else { Level::Debug };
    log::log!(level, "{}", processor.summary());
    sys::calls::count_signals();
    let kicks = shared.processors.kicks(index);
    log::debug!(
        "vCPU {index} counts: {} kick:signal={} kick:futex={}",
        shared.processors.counts(index),
        kicks.0,
        kicks.1
    );
    if let Err(reason) = ended {
        shared.stopper.stop(reason);
    }
}
