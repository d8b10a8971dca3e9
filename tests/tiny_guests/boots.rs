//! The ways to start a kernel: guests that read what the boot protocol left for them.

use iced_x86::code_asm::*;
use x86::platform;

use crate::common::{self, LOAD, Scratch, tophalf};
use crate::guest::{DONE, asm};
use crate::program::{can_run, exit_code};

/// Debug exit value of a guest that has not found what it looked for.
const WRONG: i32 = 9;

/// A kernel of 32-bit code, entered without anything but what the boot protocol gives.
struct Kernel32 {
    a: CodeAssembler,
    wrong: CodeLabel,
}

impl Kernel32 {
    /// The code that `main` emits, which then leaves with [`DONE`].
    fn code(main: impl FnOnce(&mut Self)) -> Vec<u8> {
        Self::code_at(LOAD, main)
    }

    fn code_at(address: u64, main: impl FnOnce(&mut Self)) -> Vec<u8> {
        let mut a = CodeAssembler::new(32).expect("32 is a bitness");
        let wrong = a.create_label();
        let mut g = Self { a, wrong };
        main(&mut g);
        g.exit(i32::from(DONE));
        let mut wrong = g.wrong;
        g.a.set_label(&mut wrong).expect("placed once");
        g.exit(WRONG);
        g.a.assemble(address).expect("all labels are placed")
    }

    fn exit(&mut self, value: i32) {
        let mut top = self.a.create_label();
        asm!(self; mov dx, i32::from(platform::DEBUG_EXIT); mov eax, value; out dx, al;);
        self.a.set_label(&mut top).expect("placed once");
        asm!(self; hlt; jmp top;);
    }

    /// Prints the text at ESI, up to a NUL or, with a count, so many bytes. Changes EAX, ECX, EDX and ESI.
    fn print(&mut self, count: Option<u32>) {
        let (mut top, mut done) = (self.a.create_label(), self.a.create_label());
        asm!(self; mov dx, i32::from(platform::COM1); mov ecx, count.unwrap_or(u32::MAX););
        self.a.set_label(&mut top).expect("placed once");
        asm!(self; lodsb; test al, al; jz done; out dx, al; dec ecx; jnz top;);
        self.a.set_label(&mut done).expect("placed once");
        asm!(self; mov al, 10; out dx, al;);
    }

    /// Goes on only if the dword at EBX + `offset` is `value`.
    fn expect(&mut self, offset: i32, value: u32) {
        let wrong = self.wrong;
        asm!(self; cmp dword_ptr(ebx + offset), value; jne wrong;);
    }
}

/// An ELF executable of 64 bits with one segment at [`LOAD`], where it is entered, and these notes, as the System V ABI,
/// chapter "Object Files", lays it out.
fn elf(code: &[u8], notes: &[u8]) -> Vec<u8> {
    const HEADERS: u64 = 64 + 2 * 56;
    let (code_bytes, note_bytes) = (code.len() as u64, notes.len() as u64);
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    // An executable for x86-64, version 1.
    file.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    file.extend([LOAD, 64, 0].into_iter().flat_map(u64::to_le_bytes));
    file.extend([0, 0, 0, 0, 64, 0, 56, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
    for (kind, offset, bytes) in [(1_u64, HEADERS, code_bytes), (4, HEADERS + code_bytes, note_bytes)] {
        let fields = [kind, offset, LOAD, LOAD, bytes, bytes, 4];
        file.extend(fields.into_iter().flat_map(u64::to_le_bytes));
    }
    [&file, code, notes].concat()
}

/// Runs `kernel` with the initrd \"first\" and the module \"second\" and gives what it printed.
fn run(kernel: &[u8], options: &[&str]) -> String {
    let (kernel, first, second) = (Scratch::file(kernel), Scratch::file(b"first"), Scratch::file(b"second"));
    let mut command = tophalf();
    command.args(["run", "--memory", "64M", "--cmdline", "alpha beta"]).args(options).arg(kernel.path());
    command.arg("--initrd").arg(first.path()).arg("--module").arg(second.path());
    let finished = common::run(command, b"");
    let said = String::from_utf8_lossy(&finished.stdout).into_owned();
    assert_eq!((finished.code, finished.stderr.as_str()), (exit_code(DONE), ""), "{said}");
    said
}

/// A flat multiboot image: a header at [`LOAD`], and this code after its 32 bytes.
fn flat(code: &[u8]) -> Vec<u8> {
    let load = LOAD as u32;
    let after = load + 32;
    let head = multiboot_header(1 << 16, &[load, load, 0, 0, after]);
    [&head, code].concat()
}

/// A 32-bit ELF file, its first segment a multiboot header and this code.
fn elf32(code: &[u8]) -> Vec<u8> {
    const HEADERS: u32 = 52 + 32;
    let load = LOAD as u32;
    let contents = [multiboot_header(0, &[0; 5]), code.to_vec()].concat();
    let mut file = b"\x7fELF\x01\x01\x01".to_vec();
    file.resize(16, 0);
    // An executable for the 80386, version 1.
    file.extend([2, 0, 3, 0, 1, 0, 0, 0]);
    file.extend([load + 32, 52, 0, 0].into_iter().flat_map(u32::to_le_bytes));
    file.extend([52, 0, 32, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    let bytes = contents.len() as u32;
    file.extend([1, HEADERS, load, load, bytes, bytes, 7, 4].into_iter().flat_map(u32::to_le_bytes));
    [file, contents].concat()
}

/// The header as the Multiboot Specification, section "The layout of Multiboot header", has it.
fn multiboot_header(flags: u32, addresses: &[u32; 5]) -> Vec<u8> {
    let magic = 0x1bad_b002_u32;
    let checksum = 0_u32.wrapping_sub(magic + flags);
    [magic, flags, checksum].iter().chain(addresses).flat_map(|field| field.to_le_bytes()).collect()
}

/// Red when: the header is not found, EAX or EBX is wrong, or the information structure is somewhere else.
#[test]
fn a_multiboot_kernel_finds_command_line_modules_and_memory_map() {
    if !can_run() {
        return;
    }
    let code = Kernel32::code_at(LOAD + 32, |g| {
        let wrong = g.wrong;
        asm!(g; cmp eax, 0x2bad_b002_u32; jne wrong;);
        // Lower memory ends at the EBDA, the rest is 63 MiB; modules; bytes of the memory map.
        g.expect(4, 639);
        g.expect(8, 63 << 10);
        g.expect(20, 2);
        g.expect(44, 4 * 24);
        // The name of the image is before the first blank.
        asm!(g; mov esi, dword_ptr(ebx + 16););
        let mut top = g.a.create_label();
        g.a.set_label(&mut top).expect("placed once");
        asm!(g; lodsb; cmp al, 0x20; jne top;);
        g.print(None);
        for module in 0..2 {
            asm!(g; mov edi, dword_ptr(ebx + 24); mov esi, dword_ptr(edi + 16 * module););
            g.print(Some(6));
        }
        asm!(g; mov ebx, dword_ptr(ebx + 48););
        g.expect(0, 20);
        g.expect(12, 0x9_fc00);
    });
    for image in [flat(&code), elf32(&code)] {
        assert_eq!(run(&image, &[]), "alpha beta\nfirst\nsecond\n");
    }
}

/// Red when: the note is not found, the registers are not those of the ABI, or the start information is somewhere else.
#[test]
fn a_pvh_kernel_finds_command_line_modules_and_memory_map() {
    if !can_run() {
        return;
    }
    let code = Kernel32::code(|g| {
        // Magic, version, number of modules, the length of the memory map.
        g.expect(0, 0x336e_c578);
        g.expect(4, 1);
        g.expect(12, 2);
        g.expect(48, 4);
        asm!(g; mov esi, dword_ptr(ebx + 24););
        g.print(None);
        for module in 0..2 {
            asm!(g; mov edi, dword_ptr(ebx + 16); mov esi, dword_ptr(edi + 32 * module););
            g.print(Some(6));
        }
        // The first range of RAM ends at the EBDA; the root pointer is one.
        asm!(g; mov edi, dword_ptr(ebx + 32); mov eax, dword_ptr(edi); mov edi, ebx; mov ebx, dword_ptr(ebx + 40););
        g.expect(8, 0x9_fc00);
        asm!(g; mov ebx, edi;);
        let wrong = g.wrong;
        asm!(g; cmp eax, u32::from_le_bytes(*b"RSD "); jne wrong;);
    });
    let note = [&[4, 0, 0, 0, 4, 0, 0, 0, 18, 0, 0, 0][..], b"Xen\0", &(LOAD as u32).to_le_bytes()].concat();
    assert_eq!(run(&elf(&code, &note), &[]), "alpha beta\nfirst\nsecond\n");
}
