//! Where KVM's controllers and ours differ on purpose, each with the reason. The drivers forgive what is on this list and
//! nothing else; and each entry has a trace that shows the difference, so one that has gone is found.

use std::collections::BTreeSet;

use crate::apic;
use crate::host::Host;
use crate::pic;

#[path = "differences/apic.rs"]
mod apic_list;
#[path = "differences/ioapic.rs"]
mod ioapic_list;
#[path = "differences/pic.rs"]
mod pic_list;

/// What is known to differ.
pub struct Difference {
    /// Its name.
    pub quirk: Quirk,
    /// What KVM does.
    pub kvm: &'static str,
    /// Why we do not: document and section title.
    pub why: &'static str,
    /// Where KVM does it.
    pub on: fn(&Host) -> bool,
    /// Operations, the last of which shows it.
    pub trace: Trace,
}

/// The driver's operations.
pub enum Trace {
    /// Behind the usual initialisation.
    Pic(&'static [pic::Op]),
    /// From power-up on.
    Apic(&'static [apic::Op]),
}

macro_rules! quirks {
    ($($name:ident),* $(,)?) => {
        /// Names of differences.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Quirk { $($name),* }

        impl Quirk {
            /// As text.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),* }
            }
        }
    };
}

quirks! {
    PicEdgeOutlivesTheLine,
    PicCascadeIsPulsed,
    PicElcrIsSeenLate,
    PicOutputLags,
    PicIcw1KeepsIsr,
    PicIcw1KeepsModes,
    PicNoSingleMode,
    PicNoLevelMode,
    PicNoSpecialMask,
    PicPollAnswer,
    PicCascadeIsFixed,
    PicServesUninitialised,
    PicNestsBelowTheSlave,
    ApicLint0IsOpenAfterReset,
    ApicHasNoEoiSuppression,
    ApicHasNoErrors,
    ApicHasNoArbitrationPriority,
    ApicIcrKeepsReservedBits,
    ApicInitKeepsHalfOfIcr,
    ApicLvtStatusIsWritable,
    ApicTableHasOnePlaceForABit,
    ApicTakesIllegalVectors,
    ApicIdIsWritable,
    ApicBspFlagIsWritable,
    ApicDisabledKeepsItsRegisters,
    ApicX2ReservedBits,
    ApicSendsInvalidCombinations,
    ApicSendsLevelIpis,
    ApicLowestPriorityGoesByVector,
    ApicCr8OfTheSameClass,
    SvmTprHasNoSubclass,
    SoftwareEndsWhatItDelivers,
    MsiDeassertIsSent,
    MsiHintChoosesForNmis,
    IoApicIsOfVersion11,
    IoApicHasNoEoiRegister,
    IoApicHasNoDeliveryStatus,
    IoApicKeepsReservedBits,
    IoApicHasNoWideDestinations,
    IoApicSendsReservedModes,
    IoApicSendsLevelNmis,
    IoApicEndsByNewVectorOnly,
    IoApicDoesNotTryAgain,
    ApicOddModelsAreClusters,
    ApicBroadcastStaysInItsMode,
    ApicLogicalMissesTheDisabled,
    IoApicReservedRegistersAreOnes,
    IoApicSendsEdgesAtEois,
    IoApicTakesNobodyForSomebody,
    ApicLogicalGoesByIdInMixedModes,
    IoApicHearsItsDestinationsOnly,
}

/// All of them.
pub fn all() -> impl Iterator<Item = &'static Difference> {
    pic_list::LIST.iter().chain(apic_list::LIST).chain(ioapic_list::LIST)
}

/// The differences that this host's KVM has.
pub fn here() -> impl Iterator<Item = &'static Difference> {
    all().filter(|difference| (difference.on)(Host::get()))
}

/// Their names.
pub fn known() -> BTreeSet<Quirk> {
    here().map(|difference| difference.quirk).collect()
}

fn with_svm(host: &Host) -> bool {
    host.svm
}

fn without_svm(host: &Host) -> bool {
    !host.svm
}

fn in_software(host: &Host) -> bool {
    host.software
}

fn not_in_software(host: &Host) -> bool {
    !host.software
}

/// Until KVM kept the halves of ICR apart.
fn before_6_12(host: &Host) -> bool {
    host.linux < (6, 12)
}

fn before_6_3(host: &Host) -> bool {
    !since_6_3(host)
}

/// Since KVM's table of logical destinations was rewritten.
fn since_6_3(host: &Host) -> bool {
    host.linux >= (6, 3)
}

const fn everywhere(_host: &Host) -> bool {
    true
}
