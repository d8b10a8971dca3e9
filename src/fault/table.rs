//! The list of faults.

/// Declares [`Fault`] from each fault's description and the tests to try first.
macro_rules! faults {
    ($($(#[doc = $what:literal])+ $name:ident: $first:literal,)+) => {
        /// What can be wrong with the program; where, says whoever asks [`crate::is`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Fault {
            $($(#[doc = $what])+ $name,)+
        }

        #[cfg(feature = "faults")]
        impl Fault {
            /// All of them, in the order of their numbers.
            pub const ALL: &[Record] = &[
                $(Record { fault: Self::$name, name: stringify!($name), what: concat!($($what),+), first: $first },)+
            ];
        }
    };
}

/// A fault, for those who try them.
#[cfg(feature = "faults")]
#[derive(Debug, Clone, Copy)]
pub struct Record {
    /// The fault.
    pub fault: Fault,
    /// Its name.
    pub name: &'static str,
    /// What is wrong, one sentence.
    pub what: &'static str,
    /// Tests to try first, names or patterns, the cheapest first, with blanks between them. None: it is not for the guest's tests to
    /// find.
    pub first: &'static str,
}

faults! {
    // Lines and the I/O APIC.

    /// A shared line falls with the first of its holders.
    SharedLineFallsEarly: "ioapic.shared_line_is_up_while_somebody_holds_it",
    /// A level interrupt that was accepted does not set remote IRR.
    RemoteIrrForgotten: "ioapic.level_line_sets_remote_irr_until_its_eoi",
    /// A write of an entry's low half clears remote IRR.
    RemoteIrrWritten: "ioapic.rewritten_entry_keeps_remote_irr",
    /// An EOI that finds the line still up does not send again.
    EoiDoesNotRefire: "ioapic.level_line_comes_again_while_it_is_up",
    /// An EOI ends what is in service on every pin, whatever its vector.
    EoiEndsAll: "ioapic.directed_eoi_clears_remote_irr",
    /// An EOI ends an interrupt only if its entry still has the vector that was sent.
    EoiOfOldVectorMissed: "ioapic.changed_vector_does_not_lose_the_eoi",
    /// An entry that becomes edge-triggered keeps remote IRR.
    PseudoEoiMissed: "ioapic.switching_to_edge_clears_remote_irr",
    /// An entry that is unmasked does not look at its line.
    UnmaskLosesLevel: "ioapic.level_line_waits_while_masked",
    /// The mask does not hold back level interrupts.
    MaskedLevelSent: "ioapic.level_line_waits_while_masked",
    /// The mask does not hold back edges.
    MaskedEdgeSent: "ioapic.masked_edge_is_lost",
    /// A fall of the line is taken for an edge, too.
    FallIsAnEdge: "ioapic.edge_line_interrupts_once_each_time",
    /// Level-triggered messages are sent as edges.
    LevelSentAsEdge: "ioapic.level_line_sets_remote_irr_until_its_eoi",
    /// A line that is never served is not held back.
    DamperNeverEngages: "storm.line_that_nobody_serves_is_damped",
    /// A line that is held back once is held back for good.
    DamperNeverLetsGo: "storm.line_that_nobody_serves_is_damped",

    // From messages to mailboxes.

    /// A logical destination reaches only the one whose bits are exactly these.
    LogicalMaskExact: "ipi.logical_mask",
    /// The broadcast ID is nobody's.
    BroadcastUnknown: "ipi.broadcast_id_reaches_all",
    /// All but self includes self.
    AllButSelfIncludesSelf: "ipi.all_and_all_but_self",
    /// Lowest priority always takes the first.
    LowestPriorityIsFirst: "ipi.lowest_priority_takes_the_lowest",
    /// Lowest priority takes all.
    LowestPriorityIsAll: "ipi.lowest_priority_goes_to_one",
    /// A software-disabled local APIC still takes interrupts.
    DisabledStillTakes: "apic.software_disabled_takes_no_interrupt",
    /// Now and then a request does not get into the mailbox.
    PostLost: "ipi.wakes_a_halted_cpu",
    /// Now and then nobody is woken who is owed it.
    WakeLost: "ipi.wakes_a_halted_cpu",
    /// No look at the mailbox after HLT, before the processor sleeps.
    NoLookBeforeSleep: "ipi.wakes_a_halted_cpu apic.timer_interrupts_a_loop_without_exits",
    /// A start-up message restarts a running processor.
    StartUpWhileRunning: "ipi.start_up_of_a_running_cpu_is_ignored",

    // The local APIC.

    /// The TMR does not say level.
    TmrNotSet: "ioapic.level_line_sets_remote_irr_until_its_eoi",
    /// The TMR does not go back to edge.
    TmrNotCleared: "ioapic.trigger_mode_is_that_of_the_last_message",
    /// Now and then a request is still there when it is in service.
    RequestKept: "ipi.wakes_a_halted_cpu",
    /// The lowest request is delivered first.
    LowestRequestFirst: "apic.higher_vectors_come_first",
    /// Priorities are compared by the vector, not by its class.
    PriorityByVector: "apic.same_class_does_not_nest",
    /// The TPR holds nothing back.
    TprIgnored: "apic.tpr_holds_back_lower_classes",
    /// A write of CR8 does not change the TPR.
    Cr8Ignored: "apic.cr8_is_the_tpr",
    /// An EOI ends the lowest in service.
    EoiEndsLowest: "apic.eoi_ends_the_highest_in_service",
    /// Now and then the EOI of a level interrupt is not broadcast.
    EoiBroadcastLost: "conservation.lines_and_messages",
    /// The EOI is broadcast although SVR suppresses it.
    EoiSuppressionIgnored: "ioapic.suppressed_broadcast_leaves_remote_irr",
    /// The spurious vector's low four bits are ones.
    SpuriousVectorLowBits: "apic.spurious_vector_has_its_low_bits",
    /// Disabling by SVR does not mask the local vector table.
    DisableKeepsTable: "apic.software_disable_masks_the_table",
    /// Errors are not noted.
    ErrorNotNoted: "apic.illegal_vector_is_an_error",
    /// Reserved bits are accepted in x2APIC mode.
    ReservedBitsAccepted: "apic.x2apic_refuses_reserved_bits",
    /// A masked LINT0 lets the 8259A pair through.
    Lint0MaskIgnored: "pic.masked_lint0_keeps_it_out",
    /// Now and then an ExtINT message stays after its acknowledge.
    ExtIntKept: "pic.request_comes_through_the_ioapic",
    /// INIT keeps what is in service.
    InitKeepsService: "ipi.init_forgets_what_is_in_service",
    /// The timer fires by a sixteenth too early.
    TimerEarly: "apic.timer_one_shot_is_never_early",
    /// A masked timer fires.
    MaskedTimerFires: "apic.timer_masked_only_counts",
    /// A periodic timer fires once.
    PeriodicTimerStops: "apic.timer_periodic_goes_on",
    /// An initial count of 0 does not stop the timer.
    ZeroCountGoesOn: "apic.timer_zero_stops_it",
    /// A TSC deadline of 0 does not disarm.
    ZeroDeadlineGoesOn: "apic.deadline_zero_disarms",
    /// Paravirtual EOI is offered for level interrupts, too.
    PvEoiForLevels: "ioapic.paravirtual_eoi_is_not_offered_for_levels",
    /// The byte of paravirtual EOI is not taken back.
    PvEoiLeftArmed: "apic.paravirtual_eoi_ends_its_interrupt",

    // The 8259A pair.

    /// The mask holds nothing back.
    PicMaskIgnored: "pic.masked_request_stays_pending",
    /// An acknowledge leaves the edge latched.
    PicEdgeKept: "pic.edge_comes_through_the_virtual_wire",
    /// The highest input comes first.
    PicHighestFirst: "pic.lower_input_comes_first",
    /// What is in service holds nothing back.
    PicServiceIgnored: "pic.service_holds_back_itself_and_below",
    /// The slave's output does not reach the master.
    CascadeNotFollowed: "pic.slave_comes_through_the_cascade",
    /// The slave's output does not fall in an acknowledge.
    CascadeNotDropped: "pic.two_on_the_slave_with_automatic_eoi",
    /// No automatic EOI.
    PicAutomaticEoiMissed: "pic.automatic_eoi",
    /// A specific EOI ends the highest in service.
    PicSpecificEoiIsNot: "pic.specific_eoi_ends_its_input",
    /// Rotating on EOI does not rotate.
    PicRotationMissed: "pic.rotation_changes_who_is_first",
    /// Special mask mode is stored and ignored.
    PicSpecialMaskIgnored: "pic.special_mask_lets_lower_ones_in",
    /// A poll does not put its input in service.
    PicPollDoesNotServe: "pic.poll_acknowledges",
    /// The ELCR is stored and ignored.
    ElcrIgnored: "pic.level_input_asks_as_long_as_it_is_up",
    /// ICW1 keeps what is in service.
    PicInitKeepsService: "pic.initialization_clears_service_and_mask",

    // Devices.

    /// The PIT's count in mode 0 is short by a sixteenth.
    PitEarly: "time.pit_counts_down_from_its_count",
    /// The PIT's periods are too long by one tick.
    PitPeriodLong: "time.pit_period_is_exact",
    /// The PIT's line does not fall before it rises again.
    PitEdgeMissed: "time.pit_periodic_does_not_drift",
    /// Reading the RTC's register C does not clear its flags.
    RtcFlagsKept: "time.rtc_asks_until_it_is_read",
    /// The RTC's periodic interrupt is twice as fast.
    RtcRateDoubled: "time.rtc_periodic_has_its_rate",
    /// The RTC's alarm never matches.
    RtcAlarmMissed: "time.rtc_updates_and_alarm",
    /// A comparator of the HPET that is not periodic never matches.
    HpetMatchMissed: "time.hpet_comparator_fires",
    /// A flush of a disk does nothing. No guest sees that: `cargo xtask test power-cut` does.
    FlushForgotten: "",

    // The vCPU's thread.

    /// The interrupt window is not asked for, and nobody looks again.
    WindowNotAsked: "apic.request_comes_when_interrupts_are_enabled",
    /// Now and then an acknowledged vector does not get into the guest.
    InjectionLost: "ipi.wakes_a_halted_cpu conservation.ipis_to_oneself",
    /// An NMI is injected twice.
    NmiTwice: "nmi.reaches_its_handler",
    /// An NMI does not end HLT.
    NmiDoesNotWake: "ipi.nmi_to_one_and_to_all_but_self",
    /// A halted processor does not wake for its timer.
    SleepForgetsTimer: "apic.timer_ends_sleep",
    /// The timer is not armed while the guest runs.
    TimerNotArmed: "apic.timer_interrupts_a_loop_without_exits",
    /// The priority is not published before the guest is entered.
    PriorityNotPublished: "ipi.lowest_priority_takes_the_lowest",
    /// A write of the TPR does not reach CR8.
    Cr8NotSet: "apic.cr8_is_the_tpr",
    /// INIT does nothing.
    InitIgnored: "ipi.init_and_start_up_again",
}
