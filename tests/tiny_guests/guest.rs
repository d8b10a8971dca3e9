//! A guest kernel of a few hundred instructions, assembled by the test that runs it.
//!
//! It enters at the 64-bit entry point with the first 4 GiB mapped one to one. Registers that hold the same on every CPU
//! all the time: R15 the local APIC's page, R14 the I/O APIC's window; R13 is the CPU's number. Handlers save RAX, RCX, RDX,
//! RSI and RDI. Every vector has a gate; one without a handler ends the guest with [`UNEXPECTED`].
//!
//! Ring 0 keeps off what a KVM without hardware virtualization can't interpret (most of SSE, `int n`, `popcnt`).

use std::collections::BTreeMap;

use iced_x86::BlockEncoderOptions;
use iced_x86::code_asm::*;
use x86::platform;

use crate::chips::Mode;
use crate::common::{self, LOAD};

/// Debug exit value of a guest that did what it was to do.
pub const DONE: u8 = 0;
/// Debug exit value of a guest that met an interrupt or exception nobody expected.
pub const UNEXPECTED: u8 = 0x7f;

/// The 64-bit entry point, from the load address.
const ENTRY: usize = 0x200;
/// Offset of the interrupt descriptor table in the image; the code ends before it.
const IDT: usize = 0x1_0000;
const VECTORS: usize = 256;
/// Selector of the loader's 64-bit code segment.
const CODE_SELECTOR: u16 = 0x10;
/// Present 64-bit interrupt gate.
const INTERRUPT_GATE: u8 = 0x8e;
/// Where the cells are: zero at the start, below the image.
const CELLS: u64 = 0x20_0000;
const CELL_STRIDE: u64 = 64;
/// Stacks grow down from here, one each CPU.
const STACKS: u64 = 0x40_0000;
const STACK_BYTES: u64 = 0x1_0000;

/// Emits instructions: `asm!(g; mov rax, 1u64; out dx, al;)`.
macro_rules! asm {
    ($g:expr; $($op:ident $($argument:expr),*;)*) => {{
        $( $g.a.$op($($argument),*).expect(concat!("assembles: ", stringify!($op $($argument),*))); )*
    }};
}
pub(crate) use asm;

/// Eight bytes of guest memory, or the first eight of an array.
#[derive(Debug, Clone, Copy)]
pub struct Cell(u64);

impl Cell {
    /// The cell as an operand.
    pub fn q(self) -> AsmMemoryOperand {
        qword_ptr(self.0)
    }

    /// The element for the running CPU of an array made by [`Guest::cells`].
    pub fn mine(self) -> AsmMemoryOperand {
        qword_ptr(r13 * 8 + self.0)
    }

    /// Element `index` of an array.
    pub fn at(self, index: u64) -> Self {
        Self(self.0 + 8 * index)
    }

    /// Its address.
    pub fn address(self) -> u64 {
        self.0
    }
}

/// A guest in the making.
pub struct Guest {
    /// The assembler, for [`asm!`].
    pub a: CodeAssembler,
    next_cell: u64,
    handlers: BTreeMap<u8, CodeLabel>,
    puts: CodeLabel,
    puthex: CodeLabel,
    /// How the local APIC is accessed.
    pub mode: Mode,
}

impl Guest {
    /// A guest whose bootstrap processor does what `main` emits, and then leaves with [`DONE`].
    pub fn image(main: impl FnOnce(&mut Self)) -> Vec<u8> {
        Self::assemble(Mode::XApic, main)
    }

    /// The same with its local APIC enabled in this mode.
    pub fn image_with_apic(mode: Mode, main: impl FnOnce(&mut Self)) -> Vec<u8> {
        Self::assemble(mode, |g| {
            g.enable_apic();
            main(g);
        })
    }

    fn assemble(mode: Mode, main: impl FnOnce(&mut Self)) -> Vec<u8> {
        let mut a = CodeAssembler::new(64).expect("64 is a bitness");
        let (puts, puthex) = (a.create_label(), a.create_label());
        let mut g = Self { a, next_cell: CELLS, handlers: BTreeMap::new(), puts, puthex, mode };
        asm!(g; xor r13d, r13d;);
        g.set_up_cpu();
        main(&mut g);
        g.exit(DONE);
        g.finish()
    }

    /// What every CPU does first: IDT, stack, the registers that never change. R13 is its number.
    pub fn set_up_cpu(&mut self) {
        let idtr = self.next_cell();
        asm!(self;
            mov word_ptr(idtr.0), (VECTORS * 16 - 1) as u32;
            mov rax, LOAD + IDT as u64;
            mov qword_ptr(idtr.0 + 2), rax;
            lidt ptr(idtr.0);
            lea rax, ptr(r13 + 1);
            shl rax, STACK_BYTES.trailing_zeros();
            lea rsp, ptr(rax + STACKS);
            mov r15, platform::LAPIC_BASE;
            mov r14, platform::IOAPIC_BASE;
        );
    }

    /// A cell of its own cache line.
    pub fn cell(&mut self) -> Cell {
        self.next_cell()
    }

    /// An array.
    pub fn cells(&mut self, count: u64) -> Cell {
        let cell = Cell(self.next_cell);
        self.next_cell += (8 * count).next_multiple_of(CELL_STRIDE);
        assert!(self.next_cell < STACKS, "too many cells");
        cell
    }

    fn next_cell(&mut self) -> Cell {
        self.cells(1)
    }

    /// A label.
    pub fn label(&mut self) -> CodeLabel {
        self.a.create_label()
    }

    /// Places a label here.
    pub fn place(&mut self, label: &mut CodeLabel) {
        // The empty instruction takes it, so that another one may follow.
        self.a.set_label(label).expect("placed once");
        asm!(self; zero_bytes;);
    }

    /// A label placed here.
    pub fn here(&mut self) -> CodeLabel {
        let mut label = self.label();
        self.place(&mut label);
        label
    }

    /// Emits `body` where control doesn't come by itself; gives its label.
    pub fn aside(&mut self, body: impl FnOnce(&mut Self)) -> CodeLabel {
        let mut over = self.label();
        asm!(self; jmp over;);
        let label = self.here();
        body(self);
        self.place(&mut over);
        label
    }

    /// The handler of `vector`; the processor pushed an error code only for the exceptions that have one, and then
    /// [`Guest::raw_handler`] is what is needed.
    pub fn handler(&mut self, vector: u8, body: impl FnOnce(&mut Self)) {
        self.raw_handler(vector, |g| {
            asm!(g; push rax; push rcx; push rdx; push rsi; push rdi;);
            body(g);
            asm!(g; pop rdi; pop rsi; pop rdx; pop rcx; pop rax; iretq;);
        });
    }

    /// The handler of `vector`, from the first instruction to the last.
    pub fn raw_handler(&mut self, vector: u8, body: impl FnOnce(&mut Self)) {
        let label = self.aside(body);
        assert!(self.handlers.insert(vector, label).is_none(), "two handlers for vector {vector:#x}");
    }

    /// Increments a cell that several CPUs write.
    pub fn lock_inc(&mut self, cell: Cell) {
        self.a.lock().inc(cell.q()).expect("assembles");
    }

    /// Repeats `body` `count` times; RBX counts down.
    pub fn times(&mut self, count: u32, body: impl FnOnce(&mut Self)) {
        asm!(self; mov ebx, count;);
        let top = self.here();
        body(self);
        asm!(self; dec ebx; jnz top;);
    }

    /// Halts with interrupts on until `cell` is at least `count`.
    pub fn halt_until(&mut self, cell: Cell, count: u32) {
        let mut done = self.label();
        let top = self.here();
        asm!(self; cli; cmp cell.q(), count as i32; jae done; sti; hlt; jmp top;);
        self.place(&mut done);
        asm!(self; sti;);
    }

    /// Spins until `cell` is at least `count`, which fits 31 bits, or the value of RBX with `None`.
    pub fn spin_until(&mut self, cell: Cell, count: impl Into<Option<u32>>) {
        let top = self.here();
        asm!(self; pause;);
        match count.into() {
            Some(count) => asm!(self; cmp cell.q(), count as i32;),
            None => asm!(self; cmp cell.q(), rbx;),
        }
        asm!(self; jb top;);
    }

    /// Writes a byte to a port. Changes RAX and RDX.
    pub fn out8(&mut self, port: u16, value: u8) {
        asm!(self; mov dx, u32::from(port); mov al, u32::from(value); out dx, al;);
    }

    /// Reads a byte from a port into AL. Changes RAX and RDX.
    pub fn in8(&mut self, port: u16) {
        asm!(self; mov dx, u32::from(port); in_ al, dx;);
    }

    /// EAX: the ACPI PM timer, 24 bits. Changes RAX and RDX.
    pub fn pm_timer(&mut self) {
        asm!(self; mov dx, u32::from(platform::PM_TIMER); in_ eax, dx;);
    }

    /// Starts a stopwatch in `cell`. Changes RAX and RDX.
    pub fn start_watch(&mut self, cell: Cell) {
        self.pm_timer();
        asm!(self; mov cell.q(), rax;);
    }

    /// Stops it: `cell` holds the PM timer's ticks, modulo 2^24. Changes RAX and RDX.
    pub fn stop_watch(&mut self, cell: Cell) {
        self.pm_timer();
        asm!(self; sub rax, cell.q(); and eax, 0xff_ffffu32; mov cell.q(), rax;);
    }

    /// Spins for this many ticks of the PM timer. Changes RAX and RDX.
    pub fn wait_pm_ticks(&mut self, ticks: u32) {
        let watch = self.cell();
        self.start_watch(watch);
        let top = self.here();
        self.pm_timer();
        asm!(self; sub rax, watch.q(); and eax, 0xff_ffffu32; cmp eax, ticks; jb top;);
    }

    /// Prints text on the serial port without regard to its interrupts. Changes RAX, RDX and RSI.
    pub fn print(&mut self, text: &str) {
        let bytes = [text.as_bytes(), &[0]].concat();
        let at = self.aside(|g| asm!(g; db &bytes;));
        let puts = self.puts;
        asm!(self; lea rsi, ptr(at); call puts;);
    }

    /// Prints a line `name=value`, for [`crate::program::Report`]. Changes RAX, RCX, RDX and RSI.
    pub fn report(&mut self, name: &str, cell: Cell) {
        asm!(self; mov rax, cell.q(););
        self.report_rax(name);
    }

    /// Prints a line `name=RAX`. Changes RAX, RCX, RDX, RSI and RDI.
    pub fn report_rax(&mut self, name: &str) {
        asm!(self; mov rdi, rax;);
        self.print(&format!("{name}="));
        let puthex = self.puthex;
        asm!(self; mov rax, rdi; call puthex;);
    }

    /// Ends the guest with a debug exit.
    pub fn exit(&mut self, value: u8) {
        self.out8(platform::DEBUG_EXIT, value);
        let top = self.here();
        asm!(self; cli; hlt; jmp top;);
    }

    /// The routines behind [`Guest::print`] and [`Guest::report`].
    fn routines(&mut self) {
        let (mut puts, mut puthex) = (self.puts, self.puthex);
        let mut done = self.label();
        self.place(&mut puts);
        asm!(self; mov dx, u32::from(platform::COM1););
        let top = self.here();
        asm!(self; lodsb; test al, al; jz done; out dx, al; jmp top;);
        self.place(&mut done);
        asm!(self; ret;);

        self.place(&mut puthex);
        let digits = self.aside(|g| asm!(g; db b"0123456789abcdef";));
        asm!(self; mov rcx, rax; mov dx, u32::from(platform::COM1); mov esi, 16;);
        let top = self.here();
        asm!(self;
            rol rcx, 4;
            mov eax, ecx;
            and eax, 0xf;
            lea rdi, ptr(digits);
            mov al, byte_ptr(rdi + rax);
            out dx, al;
            dec esi;
            jnz top;
            mov al, 10;
            out dx, al;
            ret;
        );
        (self.puts, self.puthex) = (puts, puthex);
    }

    /// A stub for each vector without a handler: says which it was, with the top of the stack, and ends the guest.
    fn stubs(&mut self) -> Vec<CodeLabel> {
        let mut common = self.label();
        let mut stubs = Vec::new();
        for vector in 0..VECTORS {
            let stub = self.here();
            asm!(self; push vector as i32; jmp common;);
            stubs.push(stub);
        }
        self.place(&mut common);
        asm!(self; mov rbp, rsp; mov rax, r13;);
        self.report_rax("unexpected on CPU");
        for (at, name) in ["vector", "stack", "stack", "stack"].into_iter().enumerate() {
            asm!(self; mov rax, qword_ptr(rbp + 8 * at as i32););
            self.report_rax(name);
        }
        self.exit(UNEXPECTED);
        stubs
    }

    fn finish(mut self) -> Vec<u8> {
        let stubs = self.stubs();
        self.routines();
        let assembled = self
            .a
            .assemble_options(LOAD + ENTRY as u64, BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS)
            .expect("all labels are placed");
        let mut payload = vec![0; ENTRY];
        payload.extend(&assembled.inner.code_buffer);
        assert!(payload.len() <= IDT, "the code is {} bytes long", payload.len());
        payload.resize(IDT, 0);
        for (vector, stub) in stubs.iter().enumerate() {
            let label = self.handlers.get(&(vector as u8)).unwrap_or(stub);
            payload.extend(gate(assembled.label_ip(label).expect("placed")));
        }
        common::bzimage(&payload)
    }
}

/// An interrupt gate (Intel SDM vol. 3A, section "64-Bit Mode IDT").
fn gate(handler: u64) -> [u8; 16] {
    let [h0, h1, h2, h3, h4, h5, h6, h7] = handler.to_le_bytes();
    let [s0, s1] = CODE_SELECTOR.to_le_bytes();
    [h0, h1, s0, s1, 0, INTERRUPT_GATE, h2, h3, h4, h5, h6, h7, 0, 0, 0, 0]
}
