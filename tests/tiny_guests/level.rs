//! Level-triggered interrupts: remote IRR, EOI, and firing again while the device asks.

use iced_x86::code_asm::*;
use x86::apic::reg;
use x86::ioapic::EOI;
use x86::platform::{self, COM1};

use crate::chips::{LEVEL, MASKED, Mode, PIC_VECTOR, REMOTE_IRR};
use crate::guest::{Cell, Guest, asm};
use crate::program::{can_run, report};

const VECTOR: u8 = 0x50;
const SERIAL_PIN: u8 = 4;
const IER: u16 = COM1 + 1;
const IIR: u16 = COM1 + 2;
const MCR: u16 = COM1 + 4;

/// Makes the serial port ask: its transmitter is empty. It stops when IIR is read.
fn raise_serial_line(g: &mut Guest) {
    g.out8(MCR, 0x08);
    g.out8(IER, 0);
    g.out8(IER, 2);
}

/// Adds one to `cell` if the pin's remote IRR is not `expected`.
fn check_remote_irr(g: &mut Guest, pin: u8, expected: bool, cell: Cell) {
    let mut right = g.label();
    g.ioapic_entry_low(pin);
    asm!(g; test eax, REMOTE_IRR;);
    if expected {
        asm!(g; jnz right;);
    } else {
        asm!(g; jz right;);
    }
    asm!(g; inc cell.q(););
    g.place(&mut right);
}

/// Red when: `Effect::Eoi` does not reach the I/O APIC, or `refire` does not look at the line (the count stops at 1);
/// remote IRR is not set at acceptance or not cleared by EOI; a masked pin forgets that it is asserted.
#[test]
fn a_level_interrupt_fires_again_until_the_device_is_quiet() {
    if !can_run() {
        return;
    }
    const FIRES: i32 = 10;
    for &mode in Mode::all() {
        // To the bootstrap processor, and to the other.
        for target in [0, 1] {
            let guest = Guest::image_with_apic(mode, |g| {
                let (fires, wrong) = (g.cell(), g.cell());
                let notes = g.cells(3);
                let note = |g: &mut Guest, at| asm!(g; mov rax, fires.q(); mov notes.at(at).q(), rax;);
                g.handler(VECTOR, |g| {
                    let mut quiet = g.label();
                    check_remote_irr(g, SERIAL_PIN, true, wrong);
                    asm!(g; cmp fires.q(), FIRES - 1; jb quiet;);
                    g.in8(IIR);
                    g.place(&mut quiet);
                    g.eoi();
                    asm!(g; inc fires.q(););
                });
                let online = g.application_processors(|_| {});
                g.start_all(2, online);
                g.ioapic_entry(SERIAL_PIN, LEVEL | u32::from(VECTOR), target);
                raise_serial_line(g);
                asm!(g; sti;);
                g.spin_until(fires, FIRES as u32);
                g.wait_pm_ticks(3000);
                note(g, 0);
                check_remote_irr(g, SERIAL_PIN, false, wrong);

                // Masked, the line is remembered.
                g.ioapic_entry(SERIAL_PIN, MASKED | LEVEL | u32::from(VECTOR), target);
                raise_serial_line(g);
                g.wait_pm_ticks(3000);
                note(g, 1);
                g.ioapic_entry(SERIAL_PIN, LEVEL | u32::from(VECTOR), target);
                g.spin_until(fires, FIRES as u32 + 1);
                g.wait_pm_ticks(3000);
                note(g, 2);
                // Printing would make the port ask again.
                g.out8(IER, 0);
                g.report("fires", notes.at(0));
                g.report("fires while masked", notes.at(1));
                g.report("fires in the end", notes.at(2));
                g.report("wrong", wrong);
            });
            let report = report(&guest, &["--cpus", "2"]);
            let counts = ["fires", "fires while masked", "fires in the end", "wrong"].map(|name| report.get(name));
            let fires = FIRES as u64;
            assert_eq!(counts, [fires, fires, fires + 1, 0], "{mode:?}, to CPU {target}");
        }
    }
}

/// Red when: SVR bit 12 is not looked at in `LocalApic::eoi`; the I/O APIC's EOI register does not end the interrupt.
#[test]
fn with_broadcasts_suppressed_only_the_io_apics_own_eoi_register_ends_it() {
    if !can_run() {
        return;
    }
    for &mode in Mode::all() {
        let guest = Guest::image_with_apic(mode, |g| {
            let (fires, wrong) = (g.cell(), g.cell());
            let notes = g.cells(4);
            let note = |g: &mut Guest, at| asm!(g; mov rax, fires.q(); mov notes.at(at).q(), rax;);
            g.handler(VECTOR, |g| {
                asm!(g; inc fires.q(););
                g.eoi();
            });
            g.apic_write(reg::SVR, 0x11ff);
            g.ioapic_entry(SERIAL_PIN, LEVEL | u32::from(VECTOR), 0);
            raise_serial_line(g);
            asm!(g; sti;);
            for round in 0..3 {
                g.spin_until(fires, round as u32 + 1);
                g.wait_pm_ticks(1000);
                check_remote_irr(g, SERIAL_PIN, true, wrong);
                note(g, round);
                if round == 2 {
                    g.in8(IIR);
                }
                asm!(g; mov dword_ptr(r14 + EOI), u32::from(VECTOR););
            }
            g.wait_pm_ticks(1000);
            check_remote_irr(g, SERIAL_PIN, false, wrong);
            note(g, 3);
            g.out8(IER, 0);
            for at in 0..4 {
                g.report(&format!("fires {at}"), notes.at(at));
            }
            g.report("wrong", wrong);
        });
        let report = report(&guest, &[]);
        let counts = ["fires 0", "fires 1", "fires 2", "fires 3", "wrong"].map(|name| report.get(name));
        assert_eq!(counts, [1, 2, 3, 3, 0], "{mode:?}");
    }
}

/// The PM timer's highest bit changes every 2.3 seconds.
///
/// Red when: the alarm of the PM timer is not armed; IRQ 9 is not GSI 9; writing the status bit does not lower the
/// line (the count goes on), or lowers it without the bit (it stops at 1).
#[test]
fn the_pm_timers_overflow_interrupts_until_its_status_is_cleared() {
    if !can_run() {
        return;
    }
    let guest = Guest::image_with_apic(Mode::XApic, |g| {
        let fires = g.cell();
        g.handler(VECTOR, |g| {
            let mut out = g.label();
            asm!(g; inc fires.q(); cmp fires.q(), 2; jb out;);
            asm!(g; mov dx, u32::from(platform::PM1A_EVENT); mov ax, 1; out dx, ax;);
            g.place(&mut out);
            g.eoi();
        });
        g.ioapic_entry(platform::IRQ_SCI, LEVEL | u32::from(VECTOR), 0);
        asm!(g; mov dx, u32::from(platform::PM1A_EVENT + 2); mov ax, 1; out dx, ax;);
        g.halt_until(fires, 2);
        g.wait_pm_ticks(3000);
        g.report("fires", fires);
    });
    assert_eq!(report(&guest, &[]).get("fires"), 2);
}

/// The same device through the other controller, made level-triggered in the ELCR.
///
/// Red when: the ELCR's ports are not on the bus; a level input is not seen again after EOI; its fall is not seen.
#[test]
fn a_level_input_of_the_pic_fires_again_until_the_device_is_quiet() {
    if !can_run() {
        return;
    }
    const FIRES: i32 = 10;
    let guest = Guest::image(|g| {
        let fires = g.cell();
        g.handler(PIC_VECTOR + SERIAL_PIN, |g| {
            let mut quiet = g.label();
            asm!(g; inc fires.q(); cmp fires.q(), FIRES; jb quiet;);
            g.in8(IIR);
            g.place(&mut quiet);
            g.pic_eoi();
        });
        g.pic(!(1 << SERIAL_PIN), 0xff);
        g.out8(platform::PIC_ELCR, 1 << SERIAL_PIN);
        raise_serial_line(g);
        asm!(g; sti;);
        g.spin_until(fires, FIRES as u32);
        g.wait_pm_ticks(3000);
        asm!(g; mov rbx, fires.q(););
        g.out8(IER, 0);
        asm!(g; mov rax, rbx;);
        g.report_rax("fires");
    });
    assert_eq!(report(&guest, &[]).get("fires"), FIRES as u64);
}
