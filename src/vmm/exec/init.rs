//! The init of `--exec`: a small static Linux program for x86-64, assembled here, so that the guest needs nothing but a shell.
//!
//! It mounts /dev, /proc and /sys, starts the command with pipes on its output, passes on to the command port what comes
//! out of them, reaps, and when the command has ended writes its status (128 + N after signal N, as a shell has it).
//! The port's page is mapped through /dev/mem: every distribution's kernel has that for pages that are no RAM, /dev/port is left out
//! of some (Debian's cloud kernel). System calls follow the x86-64 System V ABI, "Linux Conventions": number in RAX, arguments in RDI, RSI, RDX, R10, R8,
//! R9, result in RAX; RCX and R11 are lost.

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use x86::platform::{COMMAND_PAGE, COMMAND_PORT, COMMAND_STATUS, COMMAND_STDERR, COMMAND_STDOUT, COMMAND_WINDOW};

use crate::Error;

/// Where the program is loaded; its code follows its ELF headers.
const BASE: u64 = 0x40_0000;
const HEADERS: u64 = 64 + 2 * 56;
/// Zeroed memory, and what is where in it.
const DATA: u64 = 0x60_0000;
const DATA_BYTES: u64 = 0x3000;
/// Two pipes: read end, write end.
const PIPES: u64 = DATA;
/// Three `struct pollfd`: stdout, stderr, signals.
const POLL: u64 = DATA + 0x20;
/// `wait4`'s status.
const STATUS: u64 = DATA + 0x40;
/// The shell's arguments and environment.
const ARGUMENTS: u64 = DATA + 0x80;
const VARIABLES: u64 = DATA + 0xc0;
const BUFFER: u64 = DATA + 0x1000;
/// A signalfd_siginfo, or what fits into a stream's window.
const BUFFER_BYTES: u64 = COMMAND_WINDOW;

const SYS_READ: u64 = 0;
const SYS_WRITE: u64 = 1;
const SYS_OPEN: u64 = 2;
const SYS_CLOSE: u64 = 3;
const SYS_POLL: u64 = 7;
const SYS_MMAP: u64 = 9;
const SYS_RT_SIGPROCMASK: u64 = 14;
const SYS_DUP2: u64 = 33;
const SYS_PAUSE: u64 = 34;
const SYS_NANOSLEEP: u64 = 35;
const SYS_FORK: u64 = 57;
const SYS_EXECVE: u64 = 59;
const SYS_EXIT: u64 = 60;
const SYS_WAIT4: u64 = 61;
const SYS_FCNTL: u64 = 72;
const SYS_MKDIR: u64 = 83;
const SYS_SETSID: u64 = 112;
const SYS_MKNOD: u64 = 133;
const SYS_MOUNT: u64 = 165;
const SYS_SIGNALFD4: u64 = 289;
const SYS_PIPE2: u64 = 293;

const O_RDWR: u64 = 2;
const O_NONBLOCK: u64 = 0o4000;
const O_CLOEXEC: u64 = 0o2_000_000;
const F_SETFL: u64 = 4;
const PROT_READ_WRITE: u64 = 3;
const MAP_SHARED: u64 = 1;
const SIG_BLOCK: u64 = 0;
const SIG_UNBLOCK: u64 = 1;
/// SIGCHLD, 17, in a signal set.
const SIGCHLD_SET: u64 = 1 << 16;
const WNOHANG: u64 = 1;
/// `struct pollfd`: descriptor, events, revents. Events: POLLIN.
const POLLFD: u64 = 8;
const REVENTS: u64 = 6;
const POLLIN: u32 = 1;
const NOT_FOUND: u64 = 127;

/// /dev/mem, a character device with mode 600.
const MEMORY_MODE: u64 = 0o020_600;
const MEMORY_DEVICE: u64 = 1 << 8 | 1;

/// What is said on the console before the kernel panics for want of an init.
const NO_PORT: &[u8] = b"tophalf: --exec needs a kernel with /dev/mem (CONFIG_DEVMEM) that is not locked down\n";
const NO_SHELL: &[u8] = b"tophalf: --exec needs /bin/sh in the guest's initramfs\n";
const ENVIRONMENT: [&str; 3] =
    ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "TERM=dumb"];

/// The program, as an ELF file, that runs `/bin/sh` with these arguments (the first is its name).
pub fn program(arguments: &[&str]) -> Result<Vec<u8>, Error> {
    let code = assemble(arguments).map_err(|e| Error::host("the init for --exec can't be assembled", e))?;
    let length = HEADERS + code.len() as u64;
    let mut elf = Vec::with_capacity(length as usize);
    // e_ident: 64 bits, little-endian, version 1, System V.
    elf.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    // Executable, x86-64, version 1.
    elf.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    // Entry, program headers, no section headers.
    [BASE + HEADERS, 64, 0].iter().for_each(|field: &u64| elf.extend(field.to_le_bytes()));
    // Flags; sizes of header and program header, two of those; no sections.
    elf.extend([0, 0, 0, 0]);
    [64_u16, 56, 2, 64, 0, 0].iter().for_each(|field| elf.extend(field.to_le_bytes()));
    segment(&mut elf, 5, BASE, length, length);
    segment(&mut elf, 6, DATA, 0, DATA_BYTES);
    elf.extend(code);
    Ok(elf)
}

/// A program header of kind PT_LOAD; the file's part is at its start.
fn segment(elf: &mut Vec<u8>, flags: u32, address: u64, in_file: u64, in_memory: u64) {
    const PT_LOAD: u32 = 1;
    [PT_LOAD, flags].iter().for_each(|field| elf.extend(field.to_le_bytes()));
    [0, address, address, in_file, in_memory, 0x1000].iter().for_each(|field: &u64| elf.extend(field.to_le_bytes()));
}

fn assemble(arguments: &[&str]) -> Result<Vec<u8>, IcedError> {
    let mut init = Init { a: CodeAssembler::new(64)?, strings: Vec::new() };
    init.mounts()?;
    init.descriptors()?;
    init.port()?;
    init.signals_and_pipes()?;

    let mut child = init.a.create_label();
    init.call(SYS_FORK, &[])?;
    init.a.test(rax, rax)?;
    init.a.jz(child)?;
    init.a.mov(r14, rax)?;
    init.parent()?;

    init.a.set_label(&mut child)?;
    init.child(arguments)?;
    init.data()?;
    init.a.assemble(BASE + HEADERS)
}

/// An argument of a system call.
#[derive(Clone, Copy)]
enum Arg {
    Number(u64),
    /// The address of a string.
    At(CodeLabel),
    /// The 32 bits at this address of our data.
    Memory(u64),
    /// What is in a register that system calls keep.
    Register(AsmRegister64),
}
use Arg::{At, Memory, Number, Register};

struct Init {
    a: CodeAssembler,
    /// What goes behind the code.
    strings: Vec<(CodeLabel, Vec<u8>)>,
}

impl Init {
    fn bytes(&mut self, bytes: &[u8]) -> CodeLabel {
        let label = self.a.create_label();
        self.strings.push((label, bytes.to_vec()));
        label
    }

    fn string(&mut self, text: &str) -> CodeLabel {
        self.bytes(&[text.as_bytes(), b"\0"].concat())
    }

    /// Puts the addresses of these strings to `address`, where zero follows them.
    fn vector(&mut self, address: u64, texts: &[&str]) -> Result<(), IcedError> {
        for (at, text) in (address..).step_by(8).zip(texts) {
            let string = self.string(text);
            self.a.lea(rax, ptr(string))?;
            self.a.mov(qword_ptr(at), rax)?;
        }
        Ok(())
    }

    /// A system call.
    fn call(&mut self, number: u64, arguments: &[Arg]) -> Result<(), IcedError> {
        for (&argument, register) in arguments.iter().zip([rdi, rsi, rdx, r10, r8, r9]) {
            match argument {
                Number(value) => self.a.mov(register, value)?,
                At(label) => self.a.lea(register, ptr(label))?,
                Memory(address) => self.a.movsxd(register, dword_ptr(address))?,
                Register(from) => self.a.mov(register, from)?,
            }
        }
        self.a.mov(rax, number)?;
        self.a.syscall()
    }

    fn mounts(&mut self) -> Result<(), IcedError> {
        for (kind, place) in [("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys")] {
            let (kind, place) = (self.string(kind), self.string(place));
            // Each may be there already.
            self.call(SYS_MKDIR, &[At(place), Number(0o755)])?;
            self.call(SYS_MOUNT, &[At(kind), At(place), At(kind), Number(0), Number(0)])?;
        }
        let temporary = self.string("/tmp");
        self.call(SYS_MKDIR, &[At(temporary), Number(0o1777)])
    }

    /// Sees that 0, 1 and 2 are open, whether or not the kernel had a console for them: the pipes must not get these.
    fn descriptors(&mut self) -> Result<(), IcedError> {
        let null = self.string("/dev/null");
        let (mut again, mut done) = (self.a.create_label(), self.a.create_label());
        self.a.set_label(&mut again)?;
        self.call(SYS_OPEN, &[At(null), Number(O_RDWR)])?;
        self.a.test(rax, rax)?;
        self.a.js(done)?;
        self.a.cmp(rax, 2)?;
        self.a.jbe(again)?;
        self.a.mov(rbx, rax)?;
        self.call(SYS_CLOSE, &[Register(rbx)])?;
        self.a.set_label(&mut done)?;
        self.a.nop()
    }

    /// Maps the command port's page, by a node of our own: there may be no devtmpfs. RBP has its address from here on.
    fn port(&mut self) -> Result<(), IcedError> {
        let mut mapped = self.a.create_label();
        let (node, message) = (self.string("/.tophalf/mem"), self.bytes(NO_PORT));
        self.call(SYS_MKNOD, &[At(node), Number(MEMORY_MODE), Number(MEMORY_DEVICE)])?;
        self.call(SYS_OPEN, &[At(node), Number(O_RDWR | O_CLOEXEC)])?;
        // Without a descriptor the call fails.
        self.a.mov(rbx, rax)?;
        let page = [Number(0), Number(COMMAND_PAGE), Number(PROT_READ_WRITE), Number(MAP_SHARED)];
        self.call(SYS_MMAP, &[page.as_slice(), &[Register(rbx), Number(COMMAND_PORT)]].concat())?;
        self.a.mov(rbp, rax)?;
        self.a.test(rax, rax)?;
        self.a.jns(mapped)?;
        self.call(SYS_WRITE, &[Number(1), At(message), Number(NO_PORT.len() as u64)])?;
        self.call(SYS_EXIT, &[Number(1)])?;
        self.a.set_label(&mut mapped)?;
        self.call(SYS_CLOSE, &[Register(rbx)])
    }

    fn signals_and_pipes(&mut self) -> Result<(), IcedError> {
        let set = self.bytes(&SIGCHLD_SET.to_le_bytes());
        self.call(SYS_RT_SIGPROCMASK, &[Number(SIG_BLOCK), At(set), Number(0), Number(8)])?;
        self.call(SYS_SIGNALFD4, &[Number(u64::MAX), At(set), Number(8), Number(O_CLOEXEC)])?;
        self.a.mov(dword_ptr(POLL + 2 * POLLFD), eax)?;
        for stream in 0..2 {
            self.call(SYS_PIPE2, &[Number(PIPES + stream * 8), Number(O_CLOEXEC)])?;
            self.a.mov(eax, dword_ptr(PIPES + stream * 8))?;
            self.a.mov(dword_ptr(POLL + stream * POLLFD), eax)?;
        }
        for side in 0..3 {
            self.a.mov(dword_ptr(POLL + side * POLLFD + 4), POLLIN)?;
        }
        Ok(())
    }

    /// Passes output on until the command, whose number is in R14, has ended.
    fn parent(&mut self) -> Result<(), IcedError> {
        let mut turn = self.a.create_label();
        let (mut reap, mut streams) = (self.a.create_label(), self.a.create_label());
        let (mut ended, mut by_signal, mut tell) =
            (self.a.create_label(), self.a.create_label(), self.a.create_label());
        let mut pumps = [self.a.create_label(), self.a.create_label()];
        for stream in 0..2 {
            self.call(SYS_CLOSE, &[Memory(PIPES + stream * 8 + 4)])?;
        }
        self.a.set_label(&mut turn)?;
        self.call(SYS_POLL, &[Number(POLL), Number(3), Number(u64::MAX)])?;
        self.a.cmp(word_ptr(POLL + 2 * POLLFD + REVENTS), 0)?;
        self.a.je(streams)?;
        self.call(SYS_READ, &[Memory(POLL + 2 * POLLFD), Number(BUFFER), Number(BUFFER_BYTES)])?;
        self.a.set_label(&mut reap)?;
        self.call(SYS_WAIT4, &[Number(u64::MAX), Number(STATUS), Number(WNOHANG), Number(0)])?;
        self.a.cmp(rax, r14)?;
        self.a.je(ended)?;
        self.a.test(rax, rax)?;
        self.a.jg(reap)?;
        self.a.set_label(&mut streams)?;
        for (stream, pump) in pumps.iter().enumerate() {
            let mut quiet = self.a.create_label();
            self.a.cmp(word_ptr(POLL + stream as u64 * POLLFD + REVENTS), 0)?;
            self.a.je(quiet)?;
            self.a.call(*pump)?;
            self.a.set_label(&mut quiet)?;
            self.a.nop()?;
        }
        self.a.jmp(turn)?;

        // What is still in the pipes; others may hold them open, so that there would be no end to wait for.
        self.a.set_label(&mut ended)?;
        self.a.mov(ebx, dword_ptr(STATUS))?;
        for (stream, pump) in pumps.iter().enumerate() {
            let (mut more, mut over) = (self.a.create_label(), self.a.create_label());
            self.call(SYS_FCNTL, &[Memory(POLL + stream as u64 * POLLFD), Number(F_SETFL), Number(O_NONBLOCK)])?;
            self.a.set_label(&mut more)?;
            self.a.cmp(dword_ptr(POLL + stream as u64 * POLLFD), 0)?;
            self.a.jl(over)?;
            self.a.call(*pump)?;
            self.a.jmp(more)?;
            self.a.set_label(&mut over)?;
            self.a.nop()?;
        }
        self.a.mov(eax, ebx)?;
        self.a.and(eax, 0x7f)?;
        self.a.jnz(by_signal)?;
        self.a.movzx(eax, bh)?;
        self.a.jmp(tell)?;
        self.a.set_label(&mut by_signal)?;
        self.a.add(eax, 128)?;
        self.a.set_label(&mut tell)?;
        self.a.mov(byte_ptr(rbp + COMMAND_STATUS), al)?;
        // The machine ends while we wait.
        let mut wait = self.a.create_label();
        self.a.set_label(&mut wait)?;
        self.call(SYS_PAUSE, &[])?;
        self.a.jmp(wait)?;

        for (stream, (pump, window)) in (0..).zip(pumps.iter_mut().zip([COMMAND_STDOUT, COMMAND_STDERR])) {
            self.a.set_label(pump)?;
            self.pump(stream, window)?;
        }
        Ok(())
    }

    /// A routine: reads once from the stream's pipe and sends all to its `window`, eight bytes at a time while there are so many: each
    /// store is an exit. At the end of the pipe, and when there is nothing now, the descriptor becomes -1, which poll passes over.
    fn pump(&mut self, stream: u64, window: u64) -> Result<(), IcedError> {
        let side = POLL + stream * POLLFD;
        let (mut some, mut look, mut send) = (self.a.create_label(), self.a.create_label(), self.a.create_label());
        let (mut rest, mut byte, mut done) = (self.a.create_label(), self.a.create_label(), self.a.create_label());
        let millisecond = self.bytes(&[0_u64.to_le_bytes(), 1_000_000_u64.to_le_bytes()].concat());
        self.call(SYS_READ, &[Memory(side), Number(BUFFER), Number(BUFFER_BYTES)])?;
        self.a.test(rax, rax)?;
        self.a.jg(some)?;
        self.a.mov(dword_ptr(side), u32::MAX)?;
        self.a.ret()?;

        self.a.set_label(&mut some)?;
        self.a.mov(r12, rax)?;
        self.a.set_label(&mut look)?;
        self.a.cmp(byte_ptr(rbp + (COMMAND_STATUS + stream)), 0)?;
        self.a.jne(send)?;
        self.call(SYS_NANOSLEEP, &[At(millisecond), Number(0)])?;
        self.a.jmp(look)?;

        self.a.set_label(&mut send)?;
        self.a.mov(rsi, BUFFER)?;
        self.a.set_label(&mut rest)?;
        self.a.cmp(r12, 8)?;
        self.a.jb(byte)?;
        self.a.mov(rax, qword_ptr(rsi))?;
        self.a.mov(qword_ptr(rbp + window), rax)?;
        self.a.add(rsi, 8)?;
        self.a.sub(r12, 8)?;
        self.a.jmp(rest)?;
        self.a.set_label(&mut byte)?;
        self.a.test(r12, r12)?;
        self.a.jz(done)?;
        self.a.mov(al, byte_ptr(rsi))?;
        self.a.mov(byte_ptr(rbp + window), al)?;
        self.a.inc(rsi)?;
        self.a.dec(r12)?;
        self.a.jmp(byte)?;
        self.a.set_label(&mut done)?;
        self.a.ret()
    }

    /// Becomes the shell.
    fn child(&mut self, arguments: &[&str]) -> Result<(), IcedError> {
        let (set, null, shell) =
            (self.bytes(&SIGCHLD_SET.to_le_bytes()), self.string("/dev/null"), self.string("/bin/sh"));
        let message = self.bytes(NO_SHELL);
        self.call(SYS_SETSID, &[])?;
        self.call(SYS_OPEN, &[At(null), Number(O_RDWR)])?;
        self.a.mov(rbx, rax)?;
        self.call(SYS_DUP2, &[Register(rbx), Number(0)])?;
        self.call(SYS_CLOSE, &[Register(rbx)])?;
        for stream in 0..2 {
            self.call(SYS_DUP2, &[Memory(PIPES + stream * 8 + 4), Number(stream + 1)])?;
        }
        self.call(SYS_RT_SIGPROCMASK, &[Number(SIG_UNBLOCK), At(set), Number(0), Number(8)])?;
        self.vector(ARGUMENTS, arguments)?;
        self.vector(VARIABLES, &ENVIRONMENT)?;
        self.call(SYS_EXECVE, &[At(shell), Number(ARGUMENTS), Number(VARIABLES)])?;
        self.call(SYS_WRITE, &[Number(2), At(message), Number(NO_SHELL.len() as u64)])?;
        self.call(SYS_EXIT, &[Number(NOT_FOUND)])
    }

    /// The constants, behind the code.
    fn data(&mut self) -> Result<(), IcedError> {
        for (mut label, bytes) in std::mem::take(&mut self.strings) {
            self.a.set_label(&mut label)?;
            self.a.db(&bytes)?;
        }
        Ok(())
    }
}
