//! Reset after reset in one process: what the program holds of the host stays the same.

use std::fs;

use iced_x86::code_asm::*;
use x86::platform;

use crate::common::{Program, Scratch};
use crate::guest::{Guest, asm};
use crate::program::{can_run, command};

/// Resets of one guest.
const ROUNDS: usize = 50;
/// After so many, allocators and the kernel's own caches are warm.
const WARM: usize = 10;
/// What resident memory may vary by, in KiB: allocators keep more or less of what is freed. A guest's memory, or a vCPU's
/// stack, leaked each time would be many times that.
const SLACK: u64 = 1024;

/// What a process holds.
#[derive(Debug, Clone, Copy)]
struct Held {
    descriptors: usize,
    threads: u64,
    virtual_kib: u64,
    resident_kib: u64,
}

impl Held {
    fn by(process: u32) -> Self {
        let entries = fs::read_dir(format!("/proc/{process}/fd")).expect("it runs");
        let status = fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).expect("Linux has it");
            line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
        };
        Self {
            descriptors: entries.count(),
            threads: field("Threads:"),
            virtual_kib: field("VmSize:"),
            resident_kib: field("VmRSS:"),
        }
    }
}

/// The guest says that it is up, waits for a byte, and resets; it is looked at while it waits.
///
/// Red when: a machine's memory, threads or descriptors outlive it.
#[test]
fn fifty_resets_leave_memory_and_descriptors_flat() {
    assert_flat(&["--cpus", "2"]);
}

/// The same with devices whose files are opened once, and everything else anew.
#[test]
fn fifty_resets_with_virtio_devices_leave_memory_and_descriptors_flat() {
    let disk = Scratch::file(&[0; 1 << 16]);
    let path = disk.path().to_string_lossy();
    assert_flat(&["--disk", &path, "--rng"]);
    assert_flat(&["--disk", &path, "--rng", "--virtio", "mmio"]);
}

fn assert_flat(options: &[&str]) {
    if !can_run() {
        return;
    }
    let guest = Guest::image(|g| {
        g.print("up\n");
        let top = g.here();
        g.in8(platform::COM1 + 5);
        asm!(g; test al, 1; jz top;);
        g.in8(platform::COM1);
        g.out8(platform::RESET_CONTROL, 6);
        asm!(g; cli; hlt;);
    });
    let (_file, mut command) = command(&guest, options);
    // The C library reserves 64 MiB of addresses whenever two threads happen to allocate at once.
    command.env("MALLOC_ARENA_MAX", "1");
    let mut program = Program::start(command);
    let mut held = Vec::new();
    for round in 1..=ROUNDS {
        program.wait_for("up\n", round);
        held.push(Held::by(program.id()));
        program.send(b"x");
    }
    program.wait_for("up\n", ROUNDS + 1);
    held.push(Held::by(program.id()));
    program.child.kill().expect("it runs");
    program.finish();

    let (warm, last) = (held[WARM], held[ROUNDS]);
    assert_eq!((last.descriptors, last.threads), (warm.descriptors, warm.threads), "{held:?}");
    assert!(last.virtual_kib <= warm.virtual_kib + SLACK, "{held:?}");
    assert!(last.resident_kib <= warm.resident_kib + SLACK, "{held:?}");
}
