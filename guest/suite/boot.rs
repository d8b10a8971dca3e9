//! The way in.

use kernel::boot::info::boot_info;
use kernel::testing::TestResult;
use kernel::{check, machine, test};

test!("boot.reaches_its_tests", [3], reaches_its_tests);
test!("boot.brings_up_every_cpu_of_the_tables", [13], brings_up_every_cpu);

/// The loader's message was understood: a machine without ACPI tables or with another loader says nothing of them.
fn reaches_its_tests() -> TestResult {
    check!(boot_info().rsdp < 1 << 32, "the ACPI root pointer is at {:#x}", boot_info().rsdp);
    Ok(())
}

fn brings_up_every_cpu() -> TestResult {
    let listed = machine::tables().cpus.len().max(1);
    check!(machine::cpus() == listed, "{} CPUs of {listed} are up", machine::cpus());
    Ok(())
}
