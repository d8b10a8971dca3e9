//! The same flows with real threads: vCPUs that sleep on their mailbox's futex or "run a guest" until they are kicked,
//! and others that post to them. Every interrupt is numbered and answered before its sender goes on, so one lost
//! interrupt or wake-up stops the test; nothing here waits for time to pass but the limit that then ends it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::thread;

use irqchip::line::{Line, LineTarget, MsiTarget, Wire};
use parking_lot::Mutex;
use sys::futex::Wait;
use sys::kick::KickTarget;
use x86::apic::{MSI_PREFIX, MsiAddress, MsiData, reg};
use x86::platform;

use crate::rig::{Cpu, PIC_BASE, Rig, edge, level};

const CPUS: usize = 4;
/// After so long, in nanoseconds, something is lost.
const LIMIT: u64 = 30_000_000_000;

fn deadline() -> u64 {
    sys::clock::monotonic_ns() + LIMIT
}

/// A sender waits on it for a number of answers.
#[derive(Default)]
struct Answers(AtomicU32);

impl Answers {
    fn expect(&self, count: usize) {
        self.0.store(count as u32, Ordering::Release);
    }

    fn answer(&self) {
        if self.0.fetch_sub(1, Ordering::AcqRel) == 1 {
            sys::futex::wake(&self.0, 1);
        }
    }

    fn wait(&self, what: &str) {
        let deadline = deadline();
        loop {
            let missing = self.0.load(Ordering::Acquire);
            if missing == 0 {
                return;
            }
            let wait = sys::futex::wait(&self.0, missing, Some(deadline));
            assert!(wait != Wait::TimedOut || self.0.load(Ordering::Acquire) == 0, "{what}: {missing} answers missing");
        }
    }
}

/// Stands for the run page that KVM shares with us.
#[derive(Default)]
struct RunPage(AtomicU8);

impl KickTarget for RunPage {
    fn immediate_exit(&self) -> &AtomicU8 {
        &self.0
    }
}

/// As `vmm::vcpu`: look, deliver, and rest in a way that no post can miss. Ends when `stop` is set and the vCPU is asked
/// for its attention. `handler` is the guest's; it ends its interrupts itself.
fn run(mut cpu: Cpu, stop: &AtomicBool, mut handler: impl FnMut(&mut Cpu, u8)) -> Cpu {
    let page = Arc::new(RunPage::default());
    let _registration = sys::kick::register(page.clone()).expect("a kick signal");
    cpu.interrupts.attach_thread(cpu.index);
    loop {
        page.0.store(0, Ordering::SeqCst);
        cpu.collect();
        while let Some(vector) = cpu.interrupt() {
            handler(&mut cpu, vector);
        }
        if stop.load(Ordering::Acquire) {
            return cpu;
        }
        // Half of the vCPUs sleep, half run.
        if cpu.index.is_multiple_of(2) {
            halt(&cpu);
        } else {
            guest(&cpu, &page);
        }
    }
}

/// HLT: sleeps on the futex.
fn halt(cpu: &Cpu) {
    let mailbox = cpu.mailbox();
    if mailbox.halt() {
        let (word, halted) = mailbox.futex();
        let wait = sys::futex::wait(word, halted, Some(deadline()));
        mailbox.leave();
        assert!(wait != Wait::TimedOut || !mailbox.is_pending(), "vCPU {} slept on a request", cpu.index);
    }
}

/// Runs guest code until a kick takes it out, as KVM_RUN does.
fn guest(cpu: &Cpu, page: &RunPage) {
    let mailbox = cpu.mailbox();
    if mailbox.enter_guest() {
        let deadline = deadline();
        while page.0.load(Ordering::Relaxed) == 0 {
            thread::yield_now();
            if sys::clock::monotonic_ns() > deadline {
                assert!(!mailbox.is_pending(), "vCPU {} was not kicked for a request", cpu.index);
                break;
            }
        }
        mailbox.leave();
    }
}

/// Runs `cpus` with `handler` while `work` goes on, then ends them and gives them back.
fn with_cpus(rig: &Rig, cpus: Vec<Cpu>, handler: impl Fn(&mut Cpu, u8) + Sync, work: impl FnOnce()) -> Vec<Cpu> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let (stop, handler) = (&stop, &handler);
        let start = |cpu: Cpu| scope.spawn(move || run(cpu, stop, handler));
        let threads: Vec<_> = cpus.into_iter().map(start).collect();
        // If the work panics, the scope must not wait for vCPUs that nobody ends.
        let ended = EndCpus { rig, stop };
        work();
        drop(ended);
        threads.into_iter().map(|thread| thread.join().expect("a vCPU's thread")).collect()
    })
}

struct EndCpus<'a> {
    rig: &'a Rig,
    stop: &'a AtomicBool,
}

impl Drop for EndCpus<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        (0..self.rig.cpus()).for_each(|index| self.rig.interrupts.processors().attention(index));
    }
}

/// Runs all of `jobs` at the same time.
fn at_once<'a>(jobs: Vec<Box<dyn FnOnce() + Send + 'a>>) {
    thread::scope(|scope| jobs.into_iter().for_each(|job| drop(scope.spawn(job))));
}

fn send_msi(rig: &Rig, destination: u8, vector: u8) {
    let address = MsiAddress::new().with_prefix(MSI_PREFIX).with_destination(destination);
    rig.interrupts.send(address.into_bits().into(), MsiData::new().with_vector(vector).into_bits());
}

/// One sender: its vector, the number of its round, and who has still to answer.
#[derive(Default)]
struct Sender {
    round: AtomicU32,
    answers: Answers,
    seen: [AtomicU32; CPUS],
}

impl Sender {
    /// `rounds` times: a new number, `post`, and an answer from each of `count` vCPUs.
    fn send(&self, rounds: u32, count: usize, name: &str, mut post: impl FnMut()) {
        for round in 1..=rounds {
            self.answers.expect(count);
            self.round.store(round, Ordering::Release);
            post();
            self.answers.wait(name);
        }
    }

    /// The handler on `cpu`: this round's number, once.
    fn receive(&self, cpu: usize) {
        let round = self.round.load(Ordering::Acquire);
        let before = self.seen[cpu].swap(round, Ordering::Relaxed);
        assert_eq!(before + 1, round, "vCPU {cpu} got an interrupt twice");
        self.answers.answer();
    }
}

/// Edges by MSI, by broadcast, and through I/O APIC pins: three senders, four vCPUs, 240,000 interrupts.
///
/// Red without: the second look in `Mailbox::go`; signal or futex in `Interrupts::kick`; waking every target of a
/// broadcast. (What the fences are for, loom shows.)
#[test]
fn no_edge_is_lost_between_threads() {
    const ROUNDS: u32 = 20_000;
    const MSI: u8 = 0x50;
    const BROADCAST: u8 = 0x60;
    const PINS: u8 = 0x70;
    let (rig, cpus) = Rig::new(CPUS);
    for index in 0..CPUS as u8 {
        rig.route(16 + index, edge(PINS, index));
    }
    let senders: [Sender; 3] = Default::default();
    let handler = |cpu: &mut Cpu, vector| {
        let sender = match vector {
            MSI => 0,
            BROADCAST => 1,
            PINS => 2,
            _ => panic!("vector {vector:#x} from nowhere"),
        };
        cpu.eoi();
        senders[sender].receive(cpu.index);
    };
    let cpus = with_cpus(&rig, cpus, handler, || {
        let mut lines: Vec<Line> = (0..CPUS as u8).map(|index| rig.line(16 + index)).collect();
        at_once(vec![
            Box::new(|| {
                senders[0].send(ROUNDS, CPUS, "MSI", || (0..CPUS as u8).for_each(|to| send_msi(&rig, to, MSI)))
            }),
            Box::new(|| senders[1].send(ROUNDS, CPUS, "broadcast", || send_msi(&rig, 0xff, BROADCAST))),
            Box::new(|| senders[2].send(ROUNDS, CPUS, "pins", || lines.iter_mut().for_each(Line::pulse))),
        ]);
    });
    assert!(cpus.iter().all(|cpu| cpu.apic.irr().is_empty() && cpu.apic.isr().is_empty()));
}

/// A device with a level line: asks, until the handler has served it.
struct Device {
    state: Mutex<(Line, bool)>,
    answers: Answers,
}

impl Device {
    fn on(line: Line) -> Self {
        Self { state: Mutex::new((line, false)), answers: Answers::default() }
    }

    fn ask(&self) {
        self.answers.expect(1);
        let (line, asks) = &mut *self.state.lock();
        *asks = true;
        line.set(true);
    }

    /// The handler polls it, as it must with a shared line.
    fn serve(&self) {
        let (line, asks) = &mut *self.state.lock();
        if std::mem::take(asks) {
            line.set(false);
            self.answers.answer();
        }
    }
}

/// One less is at work, however it ended.
struct Done<'a>(&'a AtomicU32);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Three devices on two level pins: 30,000 requests. With `reroute`, another thread moves the pins from vCPU to vCPU and from
/// vector to vector all the while, as `irqbalance` does, so that they also share them.
fn level_requests(reroute: bool) {
    const ROUNDS: usize = 10_000;
    const VECTORS: [u8; 2] = [0x51, 0x62];
    let (rig, cpus) = Rig::new(CPUS);
    for (pin, vector) in [10, 11].into_iter().zip(VECTORS) {
        rig.route(pin, level(vector, pin - 10));
    }
    let devices = [10, 10, 11].map(|pin| Device::on(rig.line(pin)));
    let working = AtomicU32::new(devices.len() as u32);
    let handler = |cpu: &mut Cpu, vector| {
        let (first, second) = devices.split_at(2);
        if reroute || vector == VECTORS[0] {
            first.iter().for_each(Device::serve);
        }
        if reroute || vector == VECTORS[1] {
            second.iter().for_each(Device::serve);
        }
        assert!(VECTORS.contains(&vector), "{vector:#x}");
        cpu.eoi();
    };
    with_cpus(&rig, cpus, handler, || {
        let ask = |device: &Device| {
            let _done = Done(&working);
            for _ in 0..ROUNDS {
                device.ask();
                device.answers.wait("a level request");
            }
        };
        let move_pins = || {
            for turn in 0usize.. {
                if working.load(Ordering::Acquire) == 0 {
                    return;
                }
                let entry = level(VECTORS[turn / 2 % 2], (turn / 3 % CPUS) as u8);
                let pin = 10 + (turn % 2) as u8;
                rig.write_ioapic(0x10 + 2 * pin, entry.with_masked(true).into_bits() as u32);
                rig.route(pin, entry);
                thread::yield_now();
            }
        };
        let mut jobs: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
        for device in &devices {
            jobs.push(Box::new(move || ask(device)));
        }
        if reroute {
            jobs.push(Box::new(move_pins));
        }
        at_once(jobs);
    });
    for pin in [10, 11] {
        assert!(!rig.entry(pin).remote_irr() && !rig.entry(pin).delivery_status(), "pin {pin} is at rest");
    }
}

/// Red without: `Pin::refire` at the EOI; the evaluation after a change of the line.
#[test]
fn no_level_request_is_lost() {
    level_requests(false);
}

/// Red without: `accepted`; re-evaluation after a table write.
#[test]
fn no_level_request_is_lost_while_its_pin_is_rerouted() {
    level_requests(true);
}

/// Passes levels on, but dawdles over a fall, so that a rise could overtake it.
struct Dawdler {
    rig: Rig,
    falls: AtomicU32,
}

impl LineTarget for Dawdler {
    fn set_level(&self, gsi: u8, level: bool) {
        if !level {
            self.falls.fetch_add(1, Ordering::AcqRel);
            (0..50).for_each(|_| thread::yield_now());
        }
        self.rig.interrupts.set_level(gsi, level);
    }
}

/// One holder of a wire rises while the other's fall is on its way to the chips: the pin ends high.
///
/// Red without: the wire's lock held while the chips are told, in `Wire::change`.
#[test]
fn a_rise_does_not_overtake_a_fall() {
    const ROUNDS: u32 = 500;
    let (rig, _cpus) = Rig::new(1);
    // Nobody is there: delivery status shows the line.
    rig.route(10, level(0x51, 9));
    let dawdler = Arc::new(Dawdler { rig, falls: AtomicU32::new(0) });
    let wire = Wire::new(10, Arc::clone(&dawdler) as _);
    let (mut faller, mut riser) = (wire.holder(), wire.holder());
    for round in 1..=ROUNDS {
        faller.set(true);
        thread::scope(|scope| {
            scope.spawn(|| faller.set(false));
            while dawdler.falls.load(Ordering::Acquire) < round {
                thread::yield_now();
            }
            riser.set(true);
        });
        assert!(dawdler.rig.entry(10).delivery_status(), "round {round}: one of the two is high");
        // Low again, without a fall of the wire that would count.
        faller.set(true);
        riser.set(false);
    }
}

/// Three tokens, each with its own vector, go round the vCPUs by IPI: 60,000 of them.
///
/// Red without: the kick in `Interrupts::send_ipi`; the second look in `Mailbox::go`.
#[test]
fn tokens_go_round_by_ipi() {
    const HOPS: u32 = 20_000;
    const FIRST: u8 = 0x81;
    let (rig, cpus) = Rig::new(CPUS);
    let hops: [AtomicU32; 3] = Default::default();
    let done = Answers::default();
    done.expect(hops.len());
    let handler = |cpu: &mut Cpu, vector: u8| {
        cpu.eoi();
        if hops[usize::from(vector - FIRST)].fetch_add(1, Ordering::AcqRel) + 1 == HOPS {
            done.answer();
        } else {
            cpu.send(((cpu.index + 1) % CPUS) as u8, vector.into());
        }
    };
    with_cpus(&rig, cpus, handler, || {
        (0..hops.len() as u8).for_each(|token| send_msi(&rig, token, FIRST + token));
        done.wait("tokens");
    });
    assert_eq!(hops.map(AtomicU32::into_inner), [HOPS; 3]);
}

/// The 8259A pair's lines through LINT0, from one thread, while MSIs to the same vCPU come from another: 40,000.
///
/// Red without: `post_lint0`, or its kick after the PIC's lock is dropped.
#[test]
fn no_pic_request_is_lost_beside_messages() {
    const ROUNDS: u32 = 20_000;
    const MSI: u8 = 0x90;
    let (rig, mut cpus) = Rig::new(1);
    let effect = cpus[0].apic.enter_virtual_wire_mode();
    assert_eq!(effect, irqchip::lapic::Effect::Readdressed);
    rig.start_pics();
    rig.write_pic(platform::PIC_MASTER + 1, !(1 << 5 | 1 << 2));
    rig.write_pic(platform::PIC_SLAVE + 1, !(1 << 3));
    let senders: [Sender; 2] = Default::default();
    let handler = |cpu: &mut Cpu, vector: u8| {
        if vector == MSI {
            cpu.eoi();
            senders[1].receive(0);
            return;
        }
        let irq = vector - PIC_BASE;
        assert!(irq == 5 || irq == 11, "spurious: {vector:#x}");
        rig.end_pic(irq);
        senders[0].answers.answer();
    };
    with_cpus(&rig, cpus, handler, || {
        let mut lines = [rig.isa_line(5), rig.isa_line(11)];
        at_once(vec![
            Box::new(|| {
                // An edge must be held until it is acknowledged.
                senders[0].send(ROUNDS / 2, 2, "PIC", || {
                    for line in &mut lines {
                        line.set(false);
                        line.set(true);
                    }
                });
            }),
            Box::new(|| senders[1].send(ROUNDS, 1, "MSI", || send_msi(&rig, 0, MSI))),
        ]);
    });
}

/// INIT and start-up in one breath, 5,000 times, to a processor that is anywhere at that moment.
///
/// Red without: the wait beginning in the same step as the INIT in `Mailbox::take_start_up`.
#[test]
fn no_start_up_is_lost_behind_its_init() {
    const ROUNDS: u32 = 5_000;
    const INIT: u32 = 5 << 8 | 1 << 14;
    const START_UP: u32 = 6 << 8;
    let (rig, mut cpus) = Rig::after_reset(2);
    let mut bsp = cpus.remove(0);
    let mut ap = cpus.remove(0);
    bsp.write(reg::SVR, 0x1ff);
    let answers = Answers::default();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let (answers, stop) = (&answers, &stop);
        let ended = EndCpus { rig: &rig, stop };
        let ap = scope.spawn(move || {
            ap.interrupts.attach_thread(ap.index);
            while !stop.load(Ordering::Acquire) {
                let before = ap.log.start_ups.len();
                ap.collect();
                if ap.log.start_ups.len() > before {
                    answers.answer();
                }
                halt(&ap);
            }
            ap.log
        });
        for round in 0..ROUNDS {
            answers.expect(1);
            bsp.send(1, INIT);
            bsp.send(1, START_UP | round & 0xff);
            answers.wait("start-up");
        }
        drop(ended);
        let log = ap.join().expect("the application processor's thread");
        let expected: Vec<u8> = (0..ROUNDS).map(|round| round as u8).collect();
        assert_eq!(log.start_ups, expected);
        assert_eq!(log.inits, ROUNDS as usize);
    });
}
