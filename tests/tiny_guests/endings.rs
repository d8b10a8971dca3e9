//! How a guest ends, and what the program makes of it.

use iced_x86::code_asm::*;
use x86::platform;

use crate::guest::{Guest, asm};
use crate::program::{can_run, exit_code, run};

/// Red when: `DebugExit::write` or `outcome::of_stop` does not shift.
#[test]
fn a_debug_exit_becomes_the_exit_code() {
    if !can_run() {
        return;
    }
    for value in [0, 1, 0x55, 0x7f] {
        let finished = run(&Guest::new(|g| g.exit(value)), &[]);
        assert_eq!((finished.code, finished.stderr.as_str()), (exit_code(value), ""));
        assert_eq!(finished.stdout, b"");
    }
}

/// Red when: `Pm::write_port` does not ask for the power to go off.
#[test]
fn power_off_ends_with_0() {
    if !can_run() {
        return;
    }
    let guest = Guest::new(|g| {
        asm!(g; mov dx, u32::from(platform::PM1A_CONTROL); mov ax, u32::from(platform::SLP_TYP_S5) << 10 | 1 << 13; out dx, ax; hlt;);
    });
    let finished = run(&guest, &[]);
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
}
