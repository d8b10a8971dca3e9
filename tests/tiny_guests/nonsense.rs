//! A guest that does nothing but nonsense gets what hardware gives, and the program lives on, quietly.

use iced_x86::code_asm::*;
use x86::apic::{Esr, reg};
use x86::{msr, platform};

use crate::chips::{LEVEL, MASKED, Mode, NMI, PIC_VECTOR, x2apic_msr};
use crate::common::Finished;
use crate::guest::{Cell, Guest, asm};
use crate::program::{Report, can_run, exit_code, run};
use crate::smp::{ALL, ALL_BUT_SELF, INIT, LOGICAL, MYSELF, START_UP};

const VECTOR: u8 = 0x70;
const GP: u8 = 13;
/// Lines that the program may write on stderr about one guest, whatever that does, with all its messages turned on but
/// the trace of single accesses.
const MOST_LINES: usize = 120;

/// R12 is a state of Knuth's linear congruential generator: the next RAX. Changes nothing else.
fn random(g: &mut Guest) {
    asm!(g;
        mov rax, 6_364_136_223_846_793_005_u64;
        imul_2 r12, rax;
        mov rax, 1_442_695_040_888_963_407_u64;
        add r12, rax;
        mov rax, r12;
        shr rax, 16;
    );
}

/// EBX: a random number below `range`, from `base` on.
fn random_ebx(g: &mut Guest, base: u32, range: u32) {
    random(g);
    asm!(g; xor edx, edx; and rax, i32::MAX; mov ecx, range; div ecx; lea ebx, ptr(rdx); add ebx, base as i32;);
}

/// Emits `body` on the bootstrap processor, with #GP passing over two-byte instructions (RDI counts them) and a start of
/// the machine's usual devices behind it: what is left must still work.
fn nonsense(mode: Mode, body: impl FnOnce(&mut Guest)) -> Vec<u8> {
    Guest::image_with_apic(mode, |g| {
        let (ticks, timer_ticks, alive, nmis) = (g.cell(), g.cell(), g.cell(), g.cells(2));
        g.raw_handler(GP, |g| asm!(g; add rsp, 8; add qword_ptr(rsp), 2; inc rdi; iretq;));
        g.handler(2, |g| asm!(g; inc nmis.mine();));
        g.handler(PIC_VECTOR, |g| {
            asm!(g; inc ticks.q(););
            g.pic_eoi();
        });
        g.handler(VECTOR, |g| {
            asm!(g; inc timer_ticks.q(););
            g.eoi();
        });
        let online = g.application_processors(|g| {
            let top = g.here();
            asm!(g; inc alive.q(); pause; jmp top;);
        });
        g.start_all(2, online);
        asm!(g; xor edi, edi; mov r12, 0x1234_5678_9abc_def1_u64;);
        body(g);

        // As after power-up, as far as it matters.
        for (offset, value) in [(3, 3), (1, 0), (4, 0)] {
            g.out8(platform::COM1 + offset, value);
        }
        g.print("\n");
        asm!(g; mov rax, rdi;);
        g.report_rax("faults");
        g.pic(0xfe, 0xff);
        for pin in 0..24 {
            g.ioapic_entry(pin, MASKED, 0);
        }
        g.apic_write(reg::SVR, 0x1ff);
        g.apic_write(reg::TPR, 0);
        // Nothing that the nonsense has requested may still be in service.
        g.times(16, |g| g.eoi());
        g.apic_write(reg::LVT_LINT0, 7 << 8);
        g.pit(2, 1193);
        g.halt_until(ticks, 20);
        g.out8(platform::PIC_MASTER + 1, 0xff);
        g.apic_write(reg::TIMER_DIVIDE, 0b1011);
        g.apic_write(reg::LVT_TIMER, VECTOR.into());
        g.apic_write(reg::TIMER_INITIAL, 100_000);
        g.halt_until(timer_ticks, 1);
        // The other CPU has not started anew, and goes on.
        asm!(g; mov rbx, alive.q(); add rbx, 1000;);
        g.spin_until(alive, None);
        asm!(g; cli;);
        g.report("online", online);
        g.report("nmis", nmis.at(1));
        g.report("own nmis", nmis);
    })
}

/// Runs it twice: quietly, and with the messages on.
fn run_and_check(image: &[u8]) -> Report {
    let quiet = run(image, &["--cpus", "2"]);
    assert_eq!((quiet.code, quiet.stderr.as_str()), (exit_code(0), ""), "{}", end_of_output(&quiet));
    let verbose = run(image, &["--cpus", "2", "-vv"]);
    assert_eq!(verbose.code, exit_code(0), "{}", end_of_output(&verbose));
    let lines = verbose.stderr.lines().count();
    assert!(lines <= MOST_LINES, "{lines} lines, the last: {:?}", verbose.stderr.lines().last());
    let report = Report::new(&verbose);
    assert_eq!(report.get("online"), 1);
    report
}

fn end_of_output(finished: &Finished) -> String {
    let text = String::from_utf8_lossy(&finished.stdout);
    let lines: Vec<&str> = text.lines().rev().take(8).collect();
    format!("{lines:?}")
}

/// Sizes of an access, in bytes; ports have the first three.
const SIZES: [u32; 4] = [1, 2, 4, 8];

fn read_port(g: &mut Guest, size: u32) {
    match size {
        1 => asm!(g; in_ al, dx;),
        2 => asm!(g; in_ ax, dx;),
        _ => asm!(g; in_ eax, dx;),
    }
}

fn write_port(g: &mut Guest, size: u32) {
    match size {
        1 => asm!(g; out dx, al;),
        2 => asm!(g; out dx, ax;),
        _ => asm!(g; out dx, eax;),
    }
}

fn read_memory(g: &mut Guest, size: u32) {
    match size {
        1 => asm!(g; mov al, byte_ptr(rbx);),
        2 => asm!(g; mov ax, word_ptr(rbx);),
        4 => asm!(g; mov eax, dword_ptr(rbx);),
        _ => asm!(g; mov rax, qword_ptr(rbx);),
    }
}

fn write_memory(g: &mut Guest, size: u32) {
    match size {
        1 => asm!(g; mov byte_ptr(rbx), al;),
        2 => asm!(g; mov word_ptr(rbx), ax;),
        4 => asm!(g; mov dword_ptr(rbx), eax;),
        _ => asm!(g; mov qword_ptr(rbx), rax;),
    }
}

/// Red when: a device takes an offset or size for granted; unclaimed ports are logged one by one.
#[test]
fn ports() {
    if !can_run() {
        return;
    }
    let image = nonsense(Mode::XApic, |g| {
        // Every port below 0x700 and then some, read in every size.
        asm!(g; xor ebx, ebx;);
        let top = g.here();
        for size in [1, 2, 4] {
            asm!(g; mov edx, ebx;);
            read_port(g, size);
        }
        asm!(g; inc ebx; cmp ebx, 0x700; jb top;);
        // Where nothing is, written and read.
        g.times(300, |g| {
            asm!(g; push rbx;);
            random_ebx(g, 0x1000, 0xe000);
            for size in [1, 2, 4] {
                asm!(g; mov edx, ebx; mov rax, r12;);
                write_port(g, size);
                read_port(g, size);
            }
            asm!(g; pop rbx;);
        });
        // What is there, written with anything in any size: but what would end the machine, and rightly.
        let devices = [
            (platform::PIC_MASTER, 2),
            (platform::PIC_SLAVE, 2),
            (platform::PIC_ELCR, 2),
            (platform::PIT, 4),
            (platform::PORT_B, 1),
            (platform::RTC, 2),
            (platform::COM1, 8),
            (platform::PM1A_EVENT, 2),
            (platform::PM_TIMER, 4),
            (platform::PCI_CONFIG_DATA, 4),
            (platform::POST, 16),
        ];
        g.times(60, |g| {
            for (base, ports) in devices {
                for port in base..base + ports {
                    for size in [1, 2, 4] {
                        random(g);
                        asm!(g; mov edx, u32::from(port););
                        write_port(g, size);
                        read_port(g, size);
                    }
                }
            }
        });
        // String instructions.
        for port in [platform::COM1, platform::RTC, 0x1234] {
            asm!(g; mov edx, u32::from(port); mov rsi, 0x30_0000u64; mov ecx, 100;);
            g.a.rep().outsd().expect("assembles");
            asm!(g; mov rdi, 0x30_0000u64; mov ecx, 100;);
            g.a.rep().insw().expect("assembles");
        }
        asm!(g; xor edi, edi;);
    });
    run_and_check(&image);
}

/// Red when: an access that begins in one range and ends in another panics; a chip takes a wrong size for its own.
#[test]
fn memory_mapped_registers() {
    if !can_run() {
        return;
    }
    let image = nonsense(Mode::XApic, |g| {
        // Behind the memory, before the I/O APIC; in the hole between the two APICs.
        for (base, range) in [(0x400_0000, 0xfabf_0000), (0xfec0_1000, 0x1f_e000), (0xa_0000, 0x1_fff0)] {
            g.times(150, |g| {
                asm!(g; push rbx;);
                random_ebx(g, base, range);
                for size in SIZES {
                    asm!(g; mov rax, r12;);
                    write_memory(g, size);
                    read_memory(g, size);
                }
                asm!(g; pop rbx;);
            });
        }
        // Across the ends: memory and nothing, nothing and a chip, a chip and nothing.
        let ends = [
            0xa_0000,
            0xc_0000,
            0x400_0000,
            0xfec0_0000,
            0xfec0_1000,
            0xfed0_0000,
            0xfed0_0400,
            0xfee0_0000,
            0xfee0_1000_u32,
        ];
        for end in ends {
            for before in 1..8 {
                for size in SIZES {
                    asm!(g; mov ebx, end - before;);
                    read_memory(g, size);
                    write_memory(g, size);
                }
            }
        }
        // The I/O APIC: every size and offset; its table gets masked entries only.
        asm!(g; xor r8d, r8d;);
        let top = g.here();
        for size in SIZES {
            asm!(g; mov ebx, r14d; add ebx, r8d;);
            read_memory(g, size);
            random(g);
            asm!(g; or eax, MASKED;);
            write_memory(g, size);
        }
        asm!(g; inc r8d; cmp r8d, 0x60; jb top;);
        for index in 0..=255 {
            asm!(g; mov dword_ptr(r14), index;);
            random(g);
            asm!(g; or eax, MASKED; mov dword_ptr(r14 + 0x10), eax; mov eax, dword_ptr(r14 + 0x10););
        }
        // The HPET: every size and offset. Its counter never runs, since the messages that it would send could be any; in the
        // end the PIT has its interrupt back.
        asm!(g; xor r8d, r8d;);
        let top = g.here();
        for size in SIZES {
            asm!(g; mov ebx, platform::HPET_BASE as u32; add ebx, r8d;);
            read_memory(g, size);
            random(g);
            asm!(g; and rax, -2;);
            write_memory(g, size);
        }
        asm!(g; inc r8d; cmp r8d, 0x400; jb top;);
        asm!(g; mov ebx, platform::HPET_BASE as u32; mov dword_ptr(rbx + 0x10), 0;);
        // The local APIC: every size and offset is read. What is written unaligned or too wide does nothing.
        asm!(g; xor r8d, r8d;);
        let top = g.here();
        for size in SIZES {
            asm!(g; mov ebx, r15d; add ebx, r8d;);
            read_memory(g, size);
        }
        asm!(g; add r8d, 5; cmp r8d, 0xff8; jb top;);
        for offset in [reg::ICR_LOW, reg::SVR, reg::LVT_TIMER, reg::EOI, reg::TIMER_INITIAL, reg::ID] {
            for (shift, size) in [(0, 1), (0, 2), (0, 8), (1, 4), (2, 2), (3, 8), (4, 4), (12, 4)] {
                asm!(g; mov ebx, r15d; add ebx, (offset + shift) as i32;);
                random(g);
                write_memory(g, size);
            }
        }
        // Reserved registers, and reserved bits of the others: the timer stays masked.
        for offset in (0..0x1000).step_by(0x10) {
            let harmless = !matches!(offset, reg::ICR_LOW | reg::LVT_CMCI..=reg::LVT_ERROR);
            random(g);
            if !harmless {
                asm!(g; mov eax, MASKED | 0xfff0_00ff;);
            }
            if offset != reg::ICR_LOW {
                asm!(g; mov dword_ptr(r15 + offset), eax;);
            }
        }
        // Read-modify-write instructions, which are two exits each.
        asm!(g; mov ebx, r15d; xor ecx, ecx;);
        asm!(g; or dword_ptr(rbx + reg::TPR), 0x10; and dword_ptr(rbx + reg::TPR), 0x0f; add dword_ptr(rbx + reg::TPR), 3;);
        asm!(g; xchg dword_ptr(rbx + reg::TPR), ecx; bts dword_ptr(rbx + reg::TPR), 5;);
    });
    let report = run_and_check(&image);
    assert_eq!(report.get("faults"), 0);
}

/// Destinations that are not there, by a loop of IDs in R8; commands that mean nothing.
fn ipis_to_nobody(g: &mut Guest) {
    asm!(g; mov r8d, 2;);
    let top = g.here();
    for command in [u32::from(VECTOR), NMI, INIT, START_UP, 2 << 8, LEVEL | u32::from(VECTOR), 1 << 8 | 0x30] {
        asm!(g; mov edx, r8d;);
        g.ipi_to_edx(command);
    }
    asm!(g; inc r8d; cmp r8d, 0xff; jb top;);
    // Reserved delivery modes (remote read, ExtINT); invalid with a shorthand that has the sender in it; de-assertion of
    // INIT, which is none since the Pentium 4.
    for command in [3 << 8, 7 << 8, MYSELF | NMI, MYSELF | INIT, ALL | START_UP, ALL | NMI, ALL | INIT, 0x8500] {
        g.ipi(0, command);
        if command & (ALL | MYSELF) == 0 {
            g.ipi(1, command);
        }
    }
    // Nobody has a logical ID like this.
    g.ipi(0, LOGICAL | u32::from(VECTOR));
}

/// Start-up to CPUs that run, this one included; to all.
fn start_ups_to_the_running(g: &mut Guest) {
    g.times(20, |g| {
        g.ipi(1, START_UP);
        g.ipi(0, START_UP);
        g.ipi(0, ALL_BUT_SELF | START_UP);
    });
}

/// Sends the reserved vectors to itself and the other; leaves what the error register says in `errors`.
fn reserved_vectors(g: &mut Guest, errors: Cell) {
    g.apic_write(reg::ESR, 0);
    for vector in 0..16 {
        g.ipi(0, vector);
        g.ipi(0, MYSELF | vector);
        g.ipi(1, vector);
    }
    g.apic_write(reg::ESR, 0);
    g.apic_read(reg::ESR);
    asm!(g; mov eax, eax; mov errors.q(), rax;);
}

/// Red when: a destination indexes a table that is too short; a start-up restarts a running CPU; an illegal vector gets
/// into an IRR; an NMI to nobody goes to somebody.
#[test]
fn ipis() {
    if !can_run() {
        return;
    }
    for &mode in Mode::all() {
        let image = nonsense(mode, |g| {
            let errors = g.cell();
            ipis_to_nobody(g);
            start_ups_to_the_running(g);
            reserved_vectors(g, errors);
            g.report("errors", errors);
        });
        let report = run_and_check(&image);
        let expected = Esr::SEND_ILLEGAL_VECTOR | Esr::RECEIVE_ILLEGAL_VECTOR;
        assert_eq!(report.get("errors"), u64::from(expected.bits()), "{mode:?}");
        assert_eq!((report.get("nmis"), report.get("own nmis")), (0, 0), "{mode:?}");
    }
}

/// Red when: an access that is #GP on hardware is not, or the other way round; IA32_APIC_BASE can be brought into a
/// state that does not exist.
#[test]
fn model_specific_registers() {
    if !can_run() {
        return;
    }
    if !Mode::all().contains(&Mode::X2Apic) {
        return;
    }
    let image = nonsense(Mode::X2Apic, |g| {
        let (reads, counted) = (g.cell(), g.cells(4));
        let count = |g: &mut Guest, at| asm!(g; mov counted.at(at).q(), rdi; xor edi, edi;);
        // Every register is read; which ones fault is known.
        asm!(g; mov r8d, msr::X2APIC_FIRST;);
        let top = g.here();
        asm!(g; mov ecx, r8d; rdmsr; inc reads.q(); inc r8d; cmp r8d, msr::X2APIC_LAST; jbe top;);
        count(g, 0);
        // A bit that is reserved in all of them but the ICR, whose destination it is.
        asm!(g; mov r8d, msr::X2APIC_FIRST;);
        let top = g.here();
        let mut skip = g.label();
        asm!(g; cmp r8d, x2apic_msr(reg::ICR_LOW); je skip; mov ecx, r8d; xor eax, eax; mov edx, 0x8000_0000_u32; wrmsr;);
        g.place(&mut skip);
        asm!(g; inc r8d; cmp r8d, msr::X2APIC_LAST; jbe top;);
        count(g, 1);
        // x2APIC to xAPIC, x2APIC without enable, reserved bits, addresses beyond any processor's.
        for (low, high) in [(0xfee0_0900_u32, 0), (0xfee0_0500, 0), (0xfee0_0d01, 0), (0xfee0_0c00, 0xffff_0000_u32)] {
            asm!(g; mov ecx, msr::IA32_APIC_BASE; mov eax, low; mov edx, high; wrmsr;);
        }
        count(g, 2);
        // The page is gone, and reads as nothing.
        asm!(g; mov eax, dword_ptr(r15 + reg::SVR); mov dword_ptr(r15 + reg::ICR_LOW), 0x4500; cmp eax, -1;);
        let mut gone = g.label();
        asm!(g; je gone; ud2;);
        g.place(&mut gone);
        // Registers that nobody has.
        for register in [0x4000_0100_u32, 0xdead_0000, 0x4b56_4d7f, 0x900, 0x7ff] {
            asm!(g; mov ecx, register; rdmsr; mov ecx, register; wrmsr;);
        }
        count(g, 3);
        ipis_to_nobody(g);
        start_ups_to_the_running(g);
        for at in 0..4 {
            g.report(&format!("faults {at}"), counted.at(at));
        }
        g.report("reads", reads);
    });
    let report = run_and_check(&image);
    assert_eq!(report.get("reads"), 256);
    // Readable: ID, version, TPR, PPR, LDR, SVR; ISR, TMR and IRR of eight each; ESR, ICR; six LVT entries; three of the
    // timer. Without CMCI.
    assert_eq!(report.get("faults 0"), 256 - (6 + 24 + 2 + 6 + 3));
    assert_eq!(report.get("faults 1"), 255);
    assert_eq!(report.get("faults 2"), 4);
    assert_eq!(report.get("faults 3"), 10);
}

/// Red when: a base that has moved is looked for at the old place, or not at the new one.
#[test]
fn a_local_apic_that_is_moved_and_switched_off() {
    if !can_run() {
        return;
    }
    const ELSEWHERE: u64 = 0xd123_4000;
    let image = nonsense(Mode::XApic, |g| {
        let (old, new, off) = (g.cell(), g.cell(), g.cell());
        let write_base = |g: &mut Guest, value: u64| {
            asm!(g; mov ecx, msr::IA32_APIC_BASE; mov eax, value as u32; mov edx, (value >> 32) as u32; wrmsr;);
        };
        write_base(g, ELSEWHERE | 0x900);
        asm!(g; mov eax, dword_ptr(r15 + reg::VERSION); mov old.q(), rax;);
        asm!(g; mov rbx, ELSEWHERE; mov eax, dword_ptr(rbx + reg::VERSION); mov new.q(), rax;);
        write_base(g, ELSEWHERE | 0x100);
        asm!(g; mov eax, dword_ptr(rbx + reg::VERSION); mov off.q(), rax;);
        // On top of the I/O APIC, and of memory.
        write_base(g, platform::IOAPIC_BASE | 0x900);
        asm!(g; mov eax, dword_ptr(r14); mov dword_ptr(r14), eax;);
        write_base(g, 0x30_0900);
        asm!(g; mov ebx, 0x30_0000; mov eax, dword_ptr(rbx); mov dword_ptr(rbx), eax;);
        write_base(g, platform::LAPIC_BASE | 0x900);
        g.report("old", old);
        g.report("new", new);
        g.report("off", off);
    });
    let report = run_and_check(&image);
    let (old, new, off) = (report.get("old"), report.get("new"), report.get("off"));
    assert_eq!((old, new & 0xff, off), (0xffff_ffff, 0x14, 0xffff_ffff));
}
