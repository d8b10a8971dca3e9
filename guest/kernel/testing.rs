//! Runs the tests whose records are in the image ([`x86::test_record`]).
//!
//! The command line's `test=` says which (`measure=` runs measurements instead, see [`crate::measure`]); without it all are run, one after the other, which suits other machine monitors. For
//! each, the agent hears how it begins and ends, and the serial port says so where there is no agent, with the tables of /proc/interrupts
//! and /proc/softirqs in the end. Then the kernel writes 0 to the debug exit if nothing failed, else 1.

use alloc::string::{String, ToString};
use core::fmt;

use x86::agent::{Outcome, words};
use x86::test_record::{Modes, Needs, TestRecord};

use crate::boot::info::boot_info;
use crate::irq::proc;
use crate::{accounting, agent, console, log, machine, power, softirq};

/// A test's body.
pub type Body = fn() -> TestResult;
/// So much of a reason has room in a line of the log.
const WHY_MAX: usize = 160;

/// What a body returns.
pub type TestResult = Result<(), Failure>;

/// Why a test is not passed.
pub struct Failure {
    outcome: Outcome,
    why: String,
}

impl Failure {
    /// A check did not hold.
    pub fn new(arguments: fmt::Arguments<'_>) -> Self {
        Self::with(Outcome::Failed, arguments)
    }

    /// The test can't run here.
    pub fn skip(arguments: fmt::Arguments<'_>) -> Self {
        Self::with(Outcome::Skipped, arguments)
    }

    fn with(outcome: Outcome, arguments: fmt::Arguments<'_>) -> Self {
        Self { outcome, why: arguments.to_string() }
    }
}

/// Why.
impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.why)
    }
}

/// Puts a test into the image: its name, the rows of the table of concepts, its body, and what [`TestRecord`]'s methods add.
///
/// `test!("idt.gates_read_back", [1], gates_read_back);` or with needs `test!(…, gates_read_back; .cpus(2));`
#[macro_export]
macro_rules! test {
    ($name:literal, [$($row:literal),*], $body:path $(; $($more:tt)*)?) => {
        const _: () = {
            // SAFETY: the section holds records of this type and nothing else.
            #[unsafe(link_section = "tophalf_tests")]
            #[used]
            static RECORD: x86::test_record::TestRecord<$crate::testing::Body> =
                x86::test_record::TestRecord::new($name, &[$($row),*], $body as $crate::testing::Body) $($($more)*)?;
        };
    };
}

/// Ends the test as failed if the condition does not hold.
#[macro_export]
macro_rules! check {
    ($condition:expr) => {
        $crate::check!($condition, "{}", stringify!($condition))
    };
    ($condition:expr, $($why:tt)*) => {
        if !$condition {
            return Err($crate::testing::Failure::new(format_args!($($why)*)));
        }
    };
}

/// Ends the test as failed if the two are not equal.
#[macro_export]
macro_rules! check_eq {
    ($found:expr, $expected:expr) => {
        $crate::check_eq!($found, $expected, "{}", stringify!($found))
    };
    ($found:expr, $expected:expr, $($why:tt)*) => {
        match (&$found, &$expected) {
            (found, expected) => {
                if *found != *expected {
                    let why = format_args!($($why)*);
                    return Err($crate::testing::Failure::new(format_args!("{why}: {found:x?}, expected {expected:x?}")));
                }
            }
        }
    };
}

/// Ends the test as skipped where the machine is QEMU's own model, which is known to lack what it tests.
pub fn not_on_qemu_tcg(what: &str) -> TestResult {
    if machine::is_qemu_tcg() {
        return Err(Failure::skip(format_args!("QEMU's own model lacks it: {what}")));
    }
    Ok(())
}

/// The records in the image.
pub fn records() -> &'static [TestRecord<Body>] {
    unsafe extern "C" {
        static __start_tophalf_tests: u8;
        static __stop_tophalf_tests: u8;
    }
    let (start, stop) = (&raw const __start_tophalf_tests, &raw const __stop_tophalf_tests);
    let length = (stop as usize - start as usize) / size_of::<TestRecord<Body>>();
    // SAFETY: the linker puts all records, and only records, between these two symbols.
    unsafe { core::slice::from_raw_parts(start.cast::<TestRecord<Body>>(), length) }
}

/// The measurements in the image.
pub fn measurements() -> &'static [TestRecord<Body>] {
    unsafe extern "C" {
        static __start_tophalf_measurements: u8;
        static __stop_tophalf_measurements: u8;
    }
    let (start, stop) = (&raw const __start_tophalf_measurements, &raw const __stop_tophalf_measurements);
    let length = (stop as usize - start as usize) / size_of::<TestRecord<Body>>();
    // SAFETY: as for the tests.
    unsafe { core::slice::from_raw_parts(start.cast::<TestRecord<Body>>(), length) }
}

/// The mode of the interrupt controllers; a machine that does not say is like one with everything in user space.
pub fn mode() -> Modes {
    match boot_info().word(words::IRQCHIP) {
        Some(words::SPLIT) => Modes::SPLIT,
        Some(words::KERNEL) => Modes::KERNEL,
        _ => Modes::USER,
    }
}

/// The first thing that the machine lacks.
fn missing(record: &TestRecord<Body>) -> Result<(), Failure> {
    let cpus = machine::cpus();
    if usize::from(record.cpus) > cpus {
        return Err(Failure::skip(format_args!("needs {} CPUs, there are {cpus}", record.cpus)));
    }
    if !Modes::from_bits_retain(record.modes).contains(mode()) {
        return Err(Failure::skip(format_args!("not in this interrupt-controller mode")));
    }
    for need in record.needed().iter() {
        if !machine::has(need) {
            return Err(Failure::skip(format_args!("needs {}", describe(need))));
        }
    }
    Ok(())
}

fn describe(need: Needs) -> &'static str {
    match need {
        Needs::AGENT => "the test agent",
        Needs::PROCESSOR => "a processor for ring 0; here it is interpreted",
        Needs::X2APIC => "x2APIC",
        Needs::TSC_DEADLINE => "the TSC-deadline timer",
        Needs::HPET => "a HPET",
        Needs::PM_TIMER => "an ACPI PM timer",
        Needs::WATCHDOG => "a watchdog",
        Needs::DIRECTED_EOI => "directed EOI",
        Needs::ALONE => "to be named by itself",
        Needs::STI_SHADOW => "the shadow of STI, which this host forgets at an exit",
        Needs::IN_SERVICE => "ISR, which reads 0 in the local APIC of this software KVM",
        _ => "something that this kernel does not know",
    }
}

/// `pattern` is a name, or has one or more `*` for any text.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else { return pattern == name };
    let Some(rest) = name.strip_prefix(head) else { return false };
    rest.char_indices().map(|(at, _)| &rest[at..]).chain([""]).any(|rest| matches(tail, rest))
}

/// Runs the tests that the command line asks for, and ends the machine.
pub(crate) fn main() -> ! {
    let (records, pattern) = match boot_info().word(words::MEASURE) {
        Some(patterns) => (measurements(), Some(patterns)),
        None => (records(), boot_info().word(words::TEST)),
    };
    let selected = |record: &&TestRecord<Body>| {
        pattern.is_none_or(|patterns| patterns.split(',').any(|pattern| matches(pattern, record.name())))
    };
    let (mut passed, mut failed, mut skipped) = (0u32, 0u32, 0u32);
    for (index, record) in records.iter().enumerate().filter(|(_, record)| selected(record)) {
        let alone = pattern == Some(record.name());
        let result = if record.needed().contains(Needs::ALONE) && !alone {
            Err(Failure::skip(format_args!("runs only when named by itself: test={}", record.name())))
        } else {
            missing(record).and_then(|()| {
                begin(index);
                (record.body)()
            })
        };
        let name = record.name();
        match result {
            Ok(()) => {
                passed += 1;
                report(Outcome::Passed, name, "ok", "");
            }
            Err(Failure { outcome: Outcome::Skipped, why }) => {
                skipped += 1;
                report(Outcome::Skipped, name, "skipped: ", why.as_str());
            }
            Err(Failure { why, .. }) => {
                failed += 1;
                report(Outcome::Failed, name, "FAILED: ", why.as_str());
            }
        }
    }
    if !agent::is_present() && boot_info().word(words::MEASURE).is_none() {
        proc::show_interrupts(console::print);
        softirq::show_softirqs(console::print);
        accounting::show_deferred(console::print);
    }
    log!("{passed} passed, {failed} failed, {skipped} skipped");
    power::exit(u8::from(failed > 0 || passed + skipped == 0))
}

/// Without an agent, whoever runs measurements reads what it would write off the serial port.
fn is_heard_by_serial_port() -> bool {
    !agent::is_present() && boot_info().word(words::MEASURE).is_some()
}

fn begin(index: usize) {
    agent::begin(index);
    if is_heard_by_serial_port() {
        log!("{{\"event\":\"begin\",\"index\":{index}}}");
    }
}

fn report(outcome: Outcome, name: &str, how: &str, why: &str) {
    if is_heard_by_serial_port() {
        let outcome = match outcome {
            Outcome::Passed => "passed",
            Outcome::Skipped => "skipped",
            Outcome::Failed => "failed",
        };
        // A line that is cut would not be understood.
        let why = &why[..why.floor_char_boundary(WHY_MAX)];
        log!("{{\"event\":\"complete\",\"outcome\":{outcome:?},\"text\":{why:?}}}");
    } else if !agent::is_present() {
        log!("{name}: {how}{why}");
    }
    agent::complete(outcome, why);
}
