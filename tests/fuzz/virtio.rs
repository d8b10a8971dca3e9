//! Virtio devices on both transports under operations: a driver that sets its queues up and one that writes anything anywhere,
//! chains of any shape, packets and keys that come in. Network, console and entropy devices; the bottom halves run on the calling
//! thread.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bottom_half::{Config, CpuOwner, System, ThreadPort};
use devices::doorbell::{Connection, Doorbells, Ring, Written};
use devices::pci::Function;
use devices::virtio::console::Console;
use devices::virtio::net::{self, Backend, Net};
use devices::virtio::rng::{self, Rng};
use devices::virtio::{
    Device, Home, MMIO_WINDOW, Memory, Runner, Serve, VirtioMmio, VirtioPci, Wires, console, status,
};
use devices::{BusDevice, ConsoleEnd};
use irqchip::line::{LineTarget, Msi, MsiTarget, Wire};
use parking_lot::Mutex;
use sys::tap::{HEADER, Offloads};
use sys::terminal::Size;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::op::{Op, Target, check};

const MEMORY: usize = 2 << 20;
/// Each device's queues, a page each; and where chains mostly point.
const RINGS: u64 = 0x1_0000;
const RINGS_STEP: u64 = 0x4_0000;
const DATA: u64 = 0x18_0000;
/// Descriptors of a queue, and where in its page the rings are.
const SIZE: u16 = 16;
const DRIVER: u64 = 0x400;
const DEVICE: u64 = 0x800;
const WINDOW: u32 = 0xd000_0000;
const NOTIFY: u64 = 0x3000;
/// The slot of the network device with two pairs of queues, and its control queue.
const CONTROL: (usize, usize) = (0, 4);
/// Packets that wait.
const WAITING: usize = 64;

/// What comes out of the devices.
#[derive(Default)]
struct Outside {
    waiting: Mutex<VecDeque<Vec<u8>>>,
    sent: AtomicU64,
    longest: AtomicU64,
    received: AtomicU64,
    /// How often a queue of the interface was said to be used.
    attached: AtomicU64,
    interrupts: AtomicU64,
}

impl Backend for Outside {
    fn receive(&self, packet: &mut [u8]) -> io::Result<usize> {
        let next = self.waiting.lock().pop_front().ok_or(io::ErrorKind::WouldBlock)?;
        packet[..next.len()].copy_from_slice(&next);
        self.received.fetch_add(1, Ordering::Relaxed);
        Ok(next.len())
    }

    fn send(&self, packet: &[u8]) -> io::Result<()> {
        self.sent.fetch_add(1, Ordering::Relaxed);
        self.longest.fetch_max(packet.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn set_offloads(&self, _offloads: Offloads) -> io::Result<()> {
        Ok(())
    }

    fn set_attached(&self, attached: bool) -> io::Result<()> {
        self.attached.fetch_add(attached.into(), Ordering::Relaxed);
        Ok(())
    }
}

impl LineTarget for Outside {
    fn set_level(&self, _gsi: u8, level: bool) {
        self.interrupts.fetch_add(level.into(), Ordering::Relaxed);
    }
}

impl MsiTarget for Outside {
    fn send(&self, _address: u64, _data: u32) {
        self.interrupts.fetch_add(1, Ordering::Relaxed);
    }
}

impl Doorbells for Outside {
    fn connect(&self, _address: u64, _written: Written, _ring: Ring) -> Option<Box<dyn Connection>> {
        None
    }
}

/// Where a device's registers are.
enum Registers {
    Pci(Arc<Mutex<dyn Function>>),
    Mmio(Arc<Mutex<dyn BusDevice>>),
}

impl Registers {
    fn write(&self, offset: u64, data: &[u8]) {
        match self {
            Self::Pci(function) => function.lock().write_bar(0, offset, data),
            Self::Mmio(window) => window.lock().write(0, offset, data),
        }
    }

    fn read(&self, offset: u64, data: &mut [u8]) {
        match self {
            Self::Pci(function) => function.lock().read_bar(0, offset, data),
            Self::Mmio(window) => window.lock().read(0, offset, data),
        }
    }

    /// Writes a register that both have: its offset over PCI, and its bytes there; its offset over MMIO.
    fn set(&self, (pci, bytes): (u64, usize), mmio: u64, value: u32) {
        match self {
            Self::Pci(_) => self.write(pci, &value.to_le_bytes()[..bytes]),
            Self::Mmio(_) => self.write(mmio, &value.to_le_bytes()),
        }
    }

    /// The lower half of the features that the device offers.
    fn offered(&self) -> u32 {
        let mut bits = [0; 4];
        self.set((0x00, 4), 0x14, 0);
        self.read(if matches!(self, Self::Pci(_)) { 0x04 } else { 0x10 }, &mut bits);
        u32::from_le_bytes(bits)
    }

    fn set_status(&self, value: u8) {
        self.set((0x14, 1), 0x70, value.into());
    }

    fn notify(&self, queue: u16) {
        match self {
            Self::Pci(_) => self.write(NOTIFY + 4 * u64::from(queue), &queue.to_le_bytes()),
            Self::Mmio(_) => self.write(0x50, &u32::from(queue).to_le_bytes()),
        }
    }
}

/// Status, and how many chains of each queue are out.
type Look = Box<dyn Fn() -> (u8, Vec<u16>)>;

/// A device and its driver's state.
struct Slot {
    registers: Registers,
    look: Look,
    /// Chains made available in each queue, since it was set up.
    available: Vec<u16>,
    was_broken: bool,
}

/// All of them.
pub struct Virtio {
    memory: Memory,
    outside: Arc<Outside>,
    slots: Vec<Slot>,
    console: Arc<Mutex<VirtioPci<Console>>>,
    system: System,
    owner: CpuOwner,
    broken: u64,
    typed: u64,
    shown: u64,
}

impl Target for Virtio {
    const LIFE: u64 = 2_000;
    const SIGHTS: &'static [&'static str] = &["sent", "received", "attached", "interrupts", "broken", "typed", "shown"];

    fn new() -> Self {
        let memory: Memory =
            GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap_or_else(|e| panic!("no memory: {e}"));
        let made = System::new(Config::default(), vec![Arc::new(ThreadPort::default())]);
        let (system, mut owners) = made.unwrap_or_else(|e| panic!("no threads: {e}"));
        let owner = owners.remove(0);
        let cpu = (&system, owner.cpu());
        let outside = Arc::new(Outside::default());
        let net = |name: &str, pairs| {
            let backends = vec![Arc::clone(&outside) as _; pairs];
            Net::new(name.into(), [2, 0, 0, 0, 0, 1], backends)
        };

        let pci_net = on_pci(net("pci", 2), &memory, &outside);
        net::attach(&pci_net, cpu, Home::Softirq);
        let mmio_net = in_window(net("mmio", 1), &memory, &outside);
        net::attach(&mmio_net, cpu, Home::Tasklet);
        let console = on_pci(Console::new(vec![None, Some("port".into())]), &memory, &outside);
        let nothing = || Runner::new(Home::Softirq, cpu, bottom_half::Vector::IrqPoll, "", || bottom_half::Turn::Done);
        console::attach(&console, cpu, vec![nothing(), nothing()]);
        let rng = in_window(Rng::new(|_| true), &memory, &outside);
        rng::attach(&rng, cpu.0, cpu.1);

        let slots = vec![
            slot(Registers::Pci(Arc::clone(&pci_net) as _), pci_net),
            slot(Registers::Mmio(Arc::clone(&mmio_net) as _), mmio_net),
            slot(Registers::Pci(Arc::clone(&console) as _), Arc::clone(&console)),
            slot(Registers::Mmio(Arc::clone(&rng) as _), rng),
        ];
        let mut this = Self { memory, outside, slots, console, system, owner, broken: 0, typed: 0, shown: 0 };
        for slot in 0..this.slots.len() {
            this.bring_up(slot, u32::MAX);
        }
        this
    }

    fn step(&mut self, op: &Op) -> Result<(), String> {
        let slot = op.actor(self.slots.len());
        match op.kind(18) {
            0 => self.bring_up(slot, op.raw() as u32),
            1..5 => {
                let queue = usize::from(op.place()) % self.slots[slot].available.len();
                self.offer(slot, queue, op);
            }
            5..7 => self.run(slot, op),
            7 => self.access(slot, op),
            8 => self.configure(slot, op),
            9 => self.poke(slot, op),
            10 => self.slots[slot].registers.set_status(op.raw() as u8),
            11..13 => self.comes_in(op),
            13 => self.types(op)?,
            14 => self.shows(op)?,
            15 => self.read(slot, op),
            16 => self.resizes(op),
            _ => self.commands(op),
        }
        let slot = &mut self.slots[slot];
        let (status, out) = (slot.look)();
        let is_broken = status & status::NEEDS_RESET != 0;
        self.broken += u64::from(is_broken && !slot.was_broken);
        slot.was_broken = is_broken;
        check(out.iter().all(|&out| out <= 256), || format!("{out:?} chains are out"))?;
        let longest = self.outside.longest.load(Ordering::Relaxed);
        check(longest <= HEADER as u64 + 18 + 65536, || format!("a packet of {longest} bytes"))
    }

    fn sights(&self) -> Vec<(&'static str, u64)> {
        let Outside { sent, received, attached, interrupts, .. } = &*self.outside;
        let counts = [sent, received, attached, interrupts].map(|count| count.load(Ordering::Relaxed));
        let [sent, received, attached, interrupts] = counts;
        Self::SIGHTS
            .iter()
            .copied()
            .zip([sent, received, attached, interrupts, self.broken, self.typed, self.shown])
            .collect()
    }
}

impl Drop for Virtio {
    fn drop(&mut self) {
        // Nothing here blocks.
        self.system.shutdown(None).unwrap_or_else(|stuck| panic!("{stuck}"));
    }
}

fn on_pci<D: Device>(device: D, memory: &Memory, outside: &Arc<Outside>) -> Arc<Mutex<VirtioPci<D>>> {
    let line = Wire::new(0, Arc::clone(outside) as _).holder();
    let msi = Msi::new(Arc::clone(outside) as _);
    let wires = Wires { msi, line, gsi: 16, doorbells: Arc::clone(outside) as _ };
    Arc::new(Mutex::new(VirtioPci::new(device, memory.clone(), WINDOW, wires)))
}

fn in_window<D: Device>(device: D, memory: &Memory, outside: &Arc<Outside>) -> Arc<Mutex<VirtioMmio<D>>> {
    let line = Wire::new(0, Arc::clone(outside) as _).holder();
    let base = u64::from(WINDOW);
    Arc::new(Mutex::new(VirtioMmio::new(device, memory.clone(), base, line, Arc::clone(outside) as _)))
}

fn slot<D: Device, S: Serve<D> + 'static>(registers: Registers, device: Arc<S>) -> Slot {
    let look: Look = Box::new(move || {
        let mut seen = (0, Vec::new());
        device.serve(&mut |_, common| {
            let out = (0..common.queue_count()).filter_map(|n| Some(common.queue(n)?.outstanding())).collect();
            seen = (common.status(), out);
        });
        seen
    });
    let available = vec![0; look().1.len()];
    Slot { registers, look, available, was_broken: false }
}

/// Where a queue's rings are.
fn rings(slot: usize, queue: usize) -> u64 {
    RINGS + RINGS_STEP * slot as u64 + 0x1000 * queue as u64
}

impl Virtio {
    /// As a driver should: with those of these features of the lower half that are offered, and every queue. A driver that asks for
    /// more gets nowhere.
    fn bring_up(&mut self, slot: usize, features: u32) {
        let Slot { registers, available, .. } = &mut self.slots[slot];
        registers.set_status(0);
        registers.set_status(status::ACKNOWLEDGE | status::DRIVER);
        for (half, bits) in [(0, features & registers.offered()), (1, 0x101)] {
            registers.set((0x08, 4), 0x24, half);
            registers.set((0x0c, 4), 0x20, bits);
        }
        registers.set_status(status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK);
        for (queue, available) in available.iter_mut().enumerate() {
            let base = rings(slot, queue);
            // There is memory.
            let _ = self.memory.write_slice(&[0; 0x1000], GuestAddress(base));
            *available = 0;
            registers.set((0x16, 2), 0x30, queue as u32);
            registers.set((0x18, 2), 0x38, SIZE.into());
            for (part, at) in [0, DRIVER, DEVICE].into_iter().enumerate() {
                let (pci, mmio) = (0x20 + 8 * part as u64, 0x80 + 0x10 * part as u64);
                registers.set((pci, 4), mmio, (base + at) as u32);
                registers.set((pci + 4, 4), mmio + 4, 0);
            }
            registers.set((0x1c, 2), 0x44, 1);
        }
        registers.set_status(status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK | status::DRIVER_OK);
    }

    /// Makes a chain available: of up to four descriptors, mostly good ones.
    fn offer(&mut self, slot: usize, queue: usize, op: &Op) {
        let available = &mut self.slots[slot].available;
        let (base, raw) = (rings(slot, queue), op.raw());
        let head = (raw >> 56) as u16 % SIZE;
        let count = 1 + u16::from(op.choice(4));
        for n in 0..count {
            let bits = raw >> (8 * n);
            let address = match bits & 0x1f {
                0 => raw,
                1 => MEMORY as u64 - (bits >> 5 & 0x3f),
                _ => DATA + (bits << 4 & 0xfff0),
            };
            let len: u32 = match bits >> 5 & 7 {
                0 => 0,
                1 => 12,
                2 => raw as u32,
                3 => 65_562,
                4 => 8,
                5 => 4,
                _ => 1526,
            };
            // Queues that the driver receives by have even numbers. Now and then one is of the wrong kind, or indirect.
            let is_last = n + 1 == count;
            let mut flags = u16::from(!is_last);
            if (slot, queue) == CONTROL {
                // A command, mostly a good one, and behind it the answer.
                flags |= if is_last { 2 } else { 0 };
                let command = [4, 0, (raw >> 40) as u8 & 3, 0];
                let _ = self.memory.write_slice(&command, GuestAddress(address));
            } else if queue.is_multiple_of(2) {
                flags |= 2;
            }
            if bits & 0xf000 == 0xf000 {
                flags ^= (bits >> 16) as u16 & 7;
            }
            let at = GuestAddress(base + 16 * u64::from((head + n) % SIZE));
            let words = [address, u64::from(len) | u64::from(flags) << 32 | u64::from((head + n + 1) % SIZE) << 48];
            let _ = self.memory.write_obj(words, at);
        }
        let index = &mut available[queue];
        let _ = self.memory.write_obj(head, GuestAddress(base + DRIVER + 4 + 2 * u64::from(*index % SIZE)));
        *index = index.wrapping_add(1);
        let _ = self.memory.write_obj(*index, GuestAddress(base + DRIVER + 2));
    }

    /// The driver notifies, and the bottom halves run.
    fn run(&mut self, slot: usize, op: &Op) {
        let Slot { registers, .. } = &self.slots[slot];
        self.owner.top_half(|_| registers.notify(u16::from(op.place()) % 8));
    }

    /// The driver of several pairs of queues gives a command, now and then its first, and notifies.
    fn commands(&mut self, op: &Op) {
        let (slot, queue) = CONTROL;
        if op.choice(4) == 0 {
            self.bring_up(slot, u32::MAX);
        }
        self.offer(slot, queue, op);
        let Slot { registers, .. } = &self.slots[slot];
        self.owner.top_half(|_| registers.notify(queue as u16));
    }

    /// A write of any register, of any size.
    fn access(&mut self, slot: usize, op: &Op) {
        let offset = offset(op);
        let len = [4, 4, 2, 1, 8, 3][usize::from(op.choice(6))];
        self.slots[slot].registers.write(offset, &op.value().to_le_bytes()[..len]);
    }

    fn read(&mut self, slot: usize, op: &Op) {
        let len = [4, 4, 2, 1, 8, 3][usize::from(op.choice(6))];
        let data = &mut [0; 8][..len];
        self.slots[slot].registers.read(offset(op), data);
        if let Registers::Pci(function) = &self.slots[slot].registers {
            function.lock().read_config(usize::from(op.place()), data);
        }
    }

    /// Configuration space: MSI and MSI-X, the BAR, the access capability.
    fn configure(&mut self, slot: usize, op: &Op) {
        if let Registers::Pci(function) = &self.slots[slot].registers {
            let len = [4, 2, 1][usize::from(op.choice(3))];
            function.lock().write_config(usize::from(op.place()), &op.value().to_le_bytes()[..len]);
        }
    }

    /// The driver changes its mind about what is in its rings.
    fn poke(&mut self, slot: usize, op: &Op) {
        let queue = usize::from(op.place()) % self.slots[slot].available.len();
        let at = rings(slot, queue) + (op.raw() >> 48 & 0xffe);
        let _ = self.memory.write_obj(op.value() as u16, GuestAddress(at));
    }

    /// A packet, for whichever card is the first to look.
    fn comes_in(&mut self, op: &Op) {
        let len = HEADER + [1, 60, 1514, 65_550][usize::from(op.choice(4))];
        let mut waiting = self.outside.waiting.lock();
        if waiting.len() < WAITING && (len < 4096 || waiting.len() < 4) {
            waiting.push_back(vec![op.place(); len]);
        }
    }

    /// The host's end of a port sends something.
    fn types(&mut self, op: &Op) -> Result<(), String> {
        let mut taken = 0;
        let bytes = &[op.place(); 64][..usize::from(op.choice(65))];
        self.console.serve(&mut |console, common| {
            taken = console.end(common, usize::from(op.place() & 1)).push_input(bytes);
        });
        self.typed += taken as u64;
        check(taken <= bytes.len(), || format!("{taken} of {} bytes taken", bytes.len()))
    }

    /// The terminal at the host's end of a port has another size.
    fn resizes(&mut self, op: &Op) {
        let (columns, rows) = (op.value() as u16, op.choice(200).into());
        self.console.serve(&mut |console, common| {
            console.end(common, usize::from(op.place() & 1)).resize(Size { columns, rows });
        });
    }

    /// The host's end of a port takes something.
    fn shows(&mut self, op: &Op) -> Result<(), String> {
        let (mut data, mut peeked, mut len) = ([0; 256], 0, 0);
        self.console.serve(&mut |console, common| {
            let mut end = console.end(common, usize::from(op.place() & 1));
            (peeked, len) = (end.peek_output(&mut data), end.output_len());
            end.consume_output(peeked.min(usize::from(op.choice(255))));
        });
        self.shown += peeked as u64;
        check(peeked <= len, || format!("{peeked} bytes of {len}"))
    }
}

/// Often one of the structures, or a register of them.
fn offset(op: &Op) -> u64 {
    let (place, raw) = (u64::from(op.place()), op.raw() >> 32);
    match place & 7 {
        0 => raw % (2 * MMIO_WINDOW),
        1 => (raw & 7) << 12 | place >> 3,
        2 => 0x4000 | raw & 0x7c,
        3 => 0x100 | place >> 3,
        _ => place >> 3 << 2 | (raw & 3 << 1) & 2,
    }
}
