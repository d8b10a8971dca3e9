//! MSI-X of a virtio device, in each mode: one interrupt a request, masked vectors that stay pending, and a vector that is moved
//! while it is masked.

use iced_x86::code_asm::*;
use x86::platform;

use crate::chips::Mode;
use crate::guest::{Cell, Guest, asm};
use crate::program::{can_run, report};

/// The entropy device's place on the bus: behind the host bridge.
const DEVICE: u64 = platform::PCI_ECAM + (1 << 15);
/// Its BAR: the window's first.
const BAR: u64 = platform::PCI_WINDOW;
/// Common configuration, notification, MSI-X table and pending bits, as `devices::virtio::pci` lays the BAR out.
const COMMON: u64 = BAR;
const NOTIFY: u64 = BAR + 0x3000;
const TABLE: u64 = BAR + 0x4000;
const PENDING: u64 = BAR + 0x5000;
const MSIX_CAPABILITY: u32 = 0x11;

/// A queue of eight, and the buffer of its one chain.
const SIZE: u32 = 8;
const DESCRIPTORS: u64 = 0x32_0000;
const AVAILABLE: u64 = 0x32_1000;
const USED: u64 = 0x32_2000;
const BUFFER: u64 = 0x33_0000;

const VECTOR: u8 = 0x60;
const OTHER: u8 = 0x71;
const REQUESTS: u32 = 200;

impl Guest {
    fn mmio32(&mut self, address: u64, value: u32) {
        asm!(self; mov edx, address as u32; mov eax, value; mov dword_ptr(rdx), eax;);
    }

    fn mmio16(&mut self, address: u64, value: u32) {
        asm!(self; mov edx, address as u32; mov eax, value; mov word_ptr(rdx), ax;);
    }

    fn mmio8(&mut self, address: u64, value: u32) {
        asm!(self; mov edx, address as u32; mov eax, value; mov byte_ptr(rdx), al;);
    }

    /// Entry 1 of the table: this vector of CPU 0, masked or not.
    fn msix_entry(&mut self, vector: u8, masked: bool) {
        self.mmio32(TABLE + 16, platform::MSI_BASE as u32);
        self.mmio32(TABLE + 20, 0);
        self.mmio32(TABLE + 24, vector.into());
        self.mmio32(TABLE + 28, masked.into());
    }

    /// MSI-X on, the device running, its queue with the one chain and vector 1.
    fn start_device(&mut self) {
        asm!(self; mov ecx, DEVICE as u32; movzx esi, byte_ptr(rcx + 0x34););
        let (mut found, top) = (self.label(), self.here());
        asm!(self; movzx eax, byte_ptr(rcx + rsi); cmp eax, MSIX_CAPABILITY; je found;);
        asm!(self; movzx esi, byte_ptr(rcx + rsi + 1); jmp top;);
        self.place(&mut found);
        asm!(self; mov eax, 0x8000; mov word_ptr(rcx + rsi + 2), ax;);
        // Acknowledge, driver; VIRTIO_F_VERSION_1; features agreed upon.
        for status in [0, 1, 3] {
            self.mmio8(COMMON + 0x14, status);
        }
        self.mmio32(COMMON + 0x08, 1);
        self.mmio32(COMMON + 0x0c, 1);
        self.mmio8(COMMON + 0x14, 0xb);
        self.mmio16(COMMON + 0x16, 0);
        self.mmio16(COMMON + 0x18, SIZE);
        self.mmio16(COMMON + 0x1a, 1);
        for (at, part) in [(0x20, DESCRIPTORS), (0x28, AVAILABLE), (0x30, USED)] {
            self.mmio32(COMMON + at, part as u32);
            self.mmio32(COMMON + at + 4, 0);
        }
        // One descriptor, which the device writes to; it is in every place of the ring, whose memory is zero.
        asm!(self; mov eax, BUFFER as u32; mov edx, DESCRIPTORS as u32; mov qword_ptr(rdx), rax;
            mov dword_ptr(rdx + 8), 64; mov dword_ptr(rdx + 12), 2;);
        self.mmio16(COMMON + 0x1c, 1);
        self.mmio8(COMMON + 0x14, 0xf);
    }

    /// One more request.
    fn request(&mut self) {
        asm!(self; mov edx, AVAILABLE as u32; inc word_ptr(rdx + 2););
        self.mmio16(NOTIFY, 0);
    }

    /// Waits until as many are answered as were requested.
    fn until_used(&mut self) {
        let top = self.here();
        asm!(self; pause; mov edx, AVAILABLE as u32; movzx eax, word_ptr(rdx + 2); mov edx, USED as u32;
            movzx ecx, word_ptr(rdx + 2); cmp eax, ecx; jne top;);
    }

    fn counting_msi(&mut self, vector: u8, cell: Cell) {
        self.handler(vector, |g| {
            asm!(g; inc cell.q(););
            g.eoi();
        });
    }

    /// Halts until `cell` is one more than RBX was at the start of the round.
    fn next_of(&mut self, cell: Cell, wanted: Cell) {
        let mut done = self.label();
        asm!(self; inc wanted.q(););
        let top = self.here();
        asm!(self; cli; mov rax, wanted.q(); cmp cell.q(), rax; jae done; sti; hlt; jmp top;);
        self.place(&mut done);
        asm!(self; sti;);
    }
}

/// Red when: an interrupt is lost or doubled; a masked vector is sent, or its pending bit lost; a route is not that of the entry.
#[test]
fn each_request_of_a_virtio_device_is_one_message_in_every_mode() {
    if !can_run() {
        return;
    }
    let guest = Guest::image_with_apic(Mode::XApic, |g| {
        let (first, other, wanted, moved) = (g.cell(), g.cell(), g.cell(), g.cell());
        g.counting_msi(VECTOR, first);
        g.counting_msi(OTHER, other);
        g.msix_entry(VECTOR, false);
        g.start_device();
        asm!(g; sti;);
        g.times(REQUESTS, |g| {
            g.request();
            g.next_of(first, wanted);
        });
        // Masked: answered, pending, and no interrupt.
        g.mmio32(TABLE + 28, 1);
        g.request();
        g.until_used();
        asm!(g; mov edx, PENDING as u32; mov eax, dword_ptr(rdx););
        g.report_rax("pending");
        g.report("while masked", first);
        // Moved meanwhile: it comes as the other vector.
        g.mmio32(TABLE + 24, OTHER.into());
        g.mmio32(TABLE + 28, 0);
        g.next_of(other, moved);
        asm!(g; mov edx, PENDING as u32; mov eax, dword_ptr(rdx););
        g.report_rax("pending afterwards");
        g.times(REQUESTS, |g| {
            g.request();
            g.next_of(other, moved);
        });
        asm!(g; cli;);
        g.report("first", first);
        g.report("other", other);
    });
    for mode in ["user", "split", "kernel"] {
        let report = report(&guest, &["--rng", "--irqchip", mode]);
        let requests = u64::from(REQUESTS);
        assert_eq!((report.get("pending"), report.get("while masked")), (2, requests), "{mode}");
        assert_eq!(report.get("pending afterwards"), 0, "{mode}");
        assert_eq!((report.get("first"), report.get("other")), (requests, requests + 1), "{mode}");
    }
}
