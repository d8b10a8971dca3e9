//! How a guest ends, and what the program makes of it.

use std::process::Command;

use iced_x86::code_asm::*;
use x86::platform;

use crate::chips::{LEVEL, Mode};
use crate::common::Program;
use crate::guest::{DONE, Guest, asm};
use crate::program::{Report, can_run, command, exit_code, run};
use crate::smp::INIT;

/// Exit code of a guest that has reset, and was not to be rebooted.
const RESET: Option<i32> = Some(32);
/// Exit code of a guest that has panicked.
const PANICKED: Option<i32> = Some(34);
/// Exit code of a guest that can't go on.
const BROKEN: Option<i32> = Some(36);

/// Red when: `DebugExit::write` or `outcome::of_stop` does not shift.
#[test]
fn a_debug_exit_becomes_the_exit_code() {
    if !can_run() {
        return;
    }
    for value in [0, 1, 0x55, 0x7f] {
        let finished = run(&Guest::image(|g| g.exit(value)), &[]);
        assert_eq!((finished.code, finished.stderr.as_str()), (exit_code(value), ""));
        assert_eq!(finished.stdout, b"");
    }
}

fn power_off(g: &mut Guest) {
    asm!(g;
        mov dx, u32::from(platform::PM1A_CONTROL);
        mov ax, u32::from(platform::SLP_TYP_S5) << 10 | 1 << 13;
        out dx, ax;
        cli;
        hlt;
    );
}

/// Red when: `Pm::write_port` does not ask for the power to go off; the last output is not drained.
#[test]
fn power_off_ends_with_0() {
    if !can_run() {
        return;
    }
    let finished = run(
        &Guest::image(|g| {
            g.print("bye");
            power_off(g);
        }),
        &[],
    );
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
    assert_eq!(finished.stdout, b"bye");
}

/// A way to reset, as port and value.
const RESETS: [(u16, u8); 3] = [(platform::RESET_CONTROL, 6), (platform::I8042_COMMAND, 0xfe), (platform::PORT_92, 1)];

/// Red when: the port is not where it should be on the bus, or `--no-reboot` is not looked at.
#[test]
fn a_reset_without_reboot_ends_with_32() {
    if !can_run() {
        return;
    }
    for (port, value) in RESETS {
        let guest = Guest::image(|g| {
            g.out8(port, value);
            asm!(g; cli; hlt;);
        });
        let finished = run(&guest, &["--no-reboot"]);
        assert_eq!((finished.code, finished.stderr.as_str()), (RESET, ""), "port {port:#x}");
    }
}

/// The bootstrap processor's answer to INIT is its reset vector, where firmware would start the machine anew.
///
/// Red when: `VcpuThread::init` treats all CPUs alike.
#[test]
fn init_to_the_bootstrap_processor_is_a_reset() {
    if !can_run() {
        return;
    }
    let guest = Guest::image_with_apic(Mode::XApic, |g| {
        let online = g.application_processors(|g| g.ipi(0, INIT));
        g.start_all(2, online);
        let top = g.here();
        asm!(g; hlt; jmp top;);
    });
    let finished = run(&guest, &["--no-reboot", "--cpus", "2"]);
    assert_eq!((finished.code, finished.stderr.as_str()), (RESET, ""));
}

/// What is typed decides what the guest does, since nothing inside tells the first boot from the second. All but one CPU are
/// busy when it happens.
///
/// Red when: the console is not attached to the new machine; a vCPU's thread does not end; memory or a device keeps what
/// it had (the banner's counter would go up).
#[test]
fn a_reset_reboots_the_same_program() {
    if !can_run() {
        return;
    }
    let guest = Guest::image_with_apic(Mode::XApic, |g| {
        let boots = g.cell();
        let online = g.application_processors(|g| {
            let top = g.here();
            asm!(g; pause; jmp top;);
        });
        g.start_all(4, online);
        asm!(g; inc boots.q(););
        g.report("boot", boots);
        let wait = g.here();
        g.in8(platform::COM1 + 5);
        asm!(g; test al, 1; jz wait;);
        g.in8(platform::COM1);
        let [first, second, third] = RESETS.map(|(port, value)| {
            g.aside(|g| {
                g.out8(port, value);
                asm!(g; cli; hlt;);
            })
        });
        asm!(g; cmp al, u32::from(b'0'); je first; cmp al, u32::from(b'1'); je second;);
        asm!(g; cmp al, u32::from(b'2'); je third;);
        g.exit(3);
    });
    let (_file, command) = command(&guest, &["--cpus", "4"]);
    let mut program = Program::start(command);
    for (boot, key) in [b'0', b'1', b'2', b'q'].into_iter().enumerate() {
        program.wait_for("boot=0000000000000001\n", boot + 1);
        program.send(&[key]);
    }
    let finished = program.finish();
    assert_eq!((finished.code, finished.stderr.as_str()), (exit_code(3), ""));
    assert_eq!(finished.stdout, "boot=0000000000000001\n".repeat(4).as_bytes());
}

/// Red when: `PvPanic` is not where the platform map says; a guest whose crash kernel takes over is ended; the shutdown event
/// is not a power-off.
#[test]
fn what_a_guest_says_by_pvpanic_becomes_the_exit_code() {
    if !can_run() {
        return;
    }
    let says = |events: &'static [u8]| {
        let image = Guest::image(|g| {
            g.in8(platform::PVPANIC);
            g.report_rax("understands");
            for &event in events {
                g.out8(platform::PVPANIC, event);
            }
            g.wait_pm_ticks(3000);
        });
        let finished = run(&image, &[]);
        assert_eq!(Report::new(&finished).get("understands") & 0xff, 0b111);
        (finished.code, finished.stderr)
    };
    assert_eq!(says(&[1]), (PANICKED, "tophalf: the guest panicked; its console says why\n".to_owned()));
    assert_eq!(says(&[0, 4]), (Some(0), String::new()));
    let (code, noted) = says(&[2, 2, 2]);
    assert_eq!(code, exit_code(DONE), "the guest goes on");
    assert_eq!(noted.matches("crash kernel").count(), 1, "{noted:?}");
}

/// The guest answers the button as an operating system does: it has the SCI, finds the status, and turns itself off.
///
/// Red when: SIGPWR is not watched, the status does not raise the SCI, or the SCI's wire goes elsewhere.
#[test]
fn the_power_button_reaches_the_guest_as_an_sci() {
    if !can_run() {
        return;
    }
    /// PM1 status and enable bit.
    const POWER_BUTTON: u32 = 1 << 8;
    let guest = Guest::image_with_apic(Mode::XApic, |g| {
        g.handler(0x40, |g| {
            asm!(g; mov dx, u32::from(platform::PM1A_EVENT); in_ ax, dx; test eax, POWER_BUTTON;);
            let mut other = g.label();
            asm!(g; jz other;);
            g.print("pressed");
            power_off(g);
            g.place(&mut other);
            g.exit(1);
        });
        g.ioapic_entry(platform::IRQ_SCI, LEVEL | 0x40, 0);
        asm!(g; mov dx, u32::from(platform::PM1A_EVENT + 2); mov ax, POWER_BUTTON; out dx, ax;);
        g.print("up");
        let top = g.here();
        asm!(g; sti; hlt; jmp top;);
    });
    let (_file, command) = command(&guest, &[]);
    let mut program = Program::start(command);
    program.wait_for("up", 1);
    let sent = Command::new("kill").args(["-PWR", &program.id().to_string()]).status();
    assert!(sent.is_ok_and(|status| status.success()));
    let finished = program.finish();
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
    assert_eq!(finished.stdout, b"uppressed");
}

/// Red when: `Exit::Shutdown` is taken for something else; the dump leaves the registers out.
#[test]
fn a_triple_fault_ends_with_36_and_the_registers() {
    if !can_run() {
        return;
    }
    for cpus in ["1", "2"] {
        let guest = Guest::image_with_apic(Mode::XApic, |g| {
            let no_idt = g.cell();
            let fault = g.aside(|g| asm!(g; mov rbx, 0x1234_5678_9abc_def0_u64; lidt ptr(no_idt.address()); ud2;));
            let online = g.application_processors(|g| asm!(g; jmp fault;));
            if cpus == "2" {
                g.start_all(2, online);
                asm!(g; cli; hlt;);
            }
            asm!(g; jmp fault;);
        });
        let finished = run(&guest, &["--cpus", cpus]);
        assert_eq!(finished.code, BROKEN);
        let place = if cpus == "2" { "vCPU 1" } else { "vCPU 0" };
        let has = |part| finished.stderr.contains(part);
        assert!(has(place) && has("triple fault") && has("RIP 0x"), "{:?}", finished.stderr);
        // UD2 is at the instruction pointer; AMD's processors leave nothing but the reset state, says KVM.
        let (found, lost) = (has("123456789abcdef0") && has("code [0f, 0b"), has("RIP 0x000000000000fff0"));
        assert!(found || lost, "{:?}", finished.stderr);
        assert!(finished.stderr.lines().count() < 20, "{:?}", finished.stderr);
    }
}

/// Red when: SIGTERM is not watched; a halted vCPU is not woken at the end; `--on-halt wait` does not wait.
#[test]
fn a_signal_ends_a_guest_that_does_nothing() {
    if !can_run() {
        return;
    }
    for busy in [false, true] {
        let guest = Guest::image(|g| {
            g.print("up");
            let top = g.here();
            if busy {
                asm!(g; jmp top;);
            }
            asm!(g; cli; hlt; jmp top;);
        });
        let (_file, command) = command(&guest, &["--cpus", "2", "--on-halt", "wait"]);
        let mut program = Program::start(command);
        program.wait_for("up", 1);
        let killed = Command::new("kill").args(["-TERM", &program.id().to_string()]).status();
        assert!(killed.is_ok_and(|status| status.success()));
        let finished = program.finish();
        // By the signal: no code.
        assert_eq!((finished.code, finished.stderr.as_str()), (None, ""));
    }
}
