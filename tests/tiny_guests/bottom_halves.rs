//! Where the slow parts of devices run, by what the monitor's tables count; what an idle guest costs.

use std::collections::BTreeMap;
use std::fs;

use crate::chips::PIC_VECTOR;
use crate::common::{Program, Scratch};
use crate::guest::{Guest, asm};
use crate::program::{can_run, command};
use crate::terminal::{CTRL_A, PROMPT, User};

const TICKS: u32 = 50;
/// The PIT's count for about a millisecond.
const PIT_COUNT: u16 = 1193;
/// The PIT's longest, about 55 ms.
const LONG_PIT_COUNT: u16 = 0;

/// What the monitor's `softirq` shows.
pub struct Tables {
    /// How often each vector has run on each CPU, the main loop's last.
    pub softirqs: BTreeMap<String, Vec<u64>>,
    /// How often each CPU has handed over to its softirq thread.
    pub handed_over: Vec<u64>,
    /// Queued, merged and run items of each queue.
    pub queues: BTreeMap<String, [u64; 3]>,
}

impl Tables {
    /// Reads them off the screen, on which the monitor is open.
    pub fn ask(user: &mut User) -> Self {
        let text = user.command("softirq");
        let numbers = |words: &mut dyn Iterator<Item = &str>| words.map_while(|word| word.parse().ok()).collect();
        let mut tables = Self { softirqs: BTreeMap::new(), handed_over: Vec::new(), queues: BTreeMap::new() };
        let mut lines = text.lines();
        for line in lines.by_ref().take_while(|line| !line.contains("HANDOVER")) {
            let mut words = line.split_whitespace();
            if let Some(vector) = words.next().and_then(|word| word.strip_suffix(':')) {
                tables.softirqs.insert(vector.to_owned(), numbers(&mut words));
            }
        }
        for line in lines.by_ref().take_while(|line| !line.contains("QUEUE ")) {
            let row: Vec<u64> = numbers(&mut line.split_whitespace());
            tables.handed_over.extend(row.get(2));
        }
        for line in lines {
            let mut words = line.split_whitespace();
            if let (Some(name), [queued, merged, run, ..]) = (words.next(), numbers(&mut words).as_slice()) {
                tables.queues.insert(name.to_owned(), [*queued, *merged, *run]);
            }
        }
        assert_eq!(tables.softirqs.len(), 10, "{text}");
        tables
    }

    /// How often `vector` has run on vCPU 0's CPU and on the main loop's, of two CPUs.
    fn run(&self, vector: &str) -> (u64, u64) {
        match self.softirqs[vector].as_slice() {
            &[vcpu, main_loop] => (vcpu, main_loop),
            other => panic!("{vector}: {other:?}"),
        }
    }
}

/// Counts ticks of the PIT, says so, and waits.
fn ticking() -> Scratch {
    let image = Guest::image(|g| {
        let ticks = g.cell();
        g.handler(PIC_VECTOR, |g| {
            asm!(g; inc ticks.q(););
            g.pic_eoi();
        });
        g.pic(0xfe, 0xff);
        g.pit(2, PIT_COUNT);
        g.halt_until(ticks, TICKS);
        asm!(g; cli;);
        g.print("ticked\n");
        let top = g.here();
        asm!(g; pause; jmp top;);
    });
    Scratch::file(&image)
}

fn tables_after_ticks(options: &[&str]) -> Tables {
    let image = ticking();
    let mut user = User::run(&image, options);
    user.sees("ticked\r\n");
    user.types(&format!("{CTRL_A}c"));
    user.sees(PROMPT);
    let tables = Tables::ask(&mut user);
    user.types(&format!("{CTRL_A}x"));
    assert_eq!(user.ends(), Some(0));
    tables
}

/// Red when: `Wiring::timers` does not give the PIT a timer of the main loop's CPU; the serial port is not drained by a tasklet.
#[test]
fn by_default_timers_run_from_hrtimer_and_output_from_a_tasklet() {
    if !can_run() {
        return;
    }
    for mode in ["user", "split", "kernel"] {
        let tables = tables_after_ticks(&["--irqchip", mode]);
        let (vcpu, main_loop) = tables.run("HRTIMER");
        assert!(vcpu == 0 && main_loop >= u64::from(TICKS), "{mode}: {:?}", tables.softirqs);
        let (vcpu, main_loop) = tables.run("TASKLET");
        assert!(vcpu == 0 && main_loop > 0, "{mode}: {:?}", tables.softirqs);
        assert_eq!(tables.run("IRQ_POLL"), (0, 0));
        assert!(tables.queues.values().all(|queue| queue[0] == 0), "no work queue is needed: {:?}", tables.queues);
    }
}

/// Red when: a choice of `--bottom-half` does not reach the device.
#[test]
fn a_device_works_where_the_user_says() {
    if !can_run() {
        return;
    }
    let ticks = u64::from(TICKS);
    let tables = tables_after_ticks(&["--bottom-half", "pit=tasklet", "--bottom-half", "serial=softirq"]);
    assert!(tables.run("TASKLET").1 >= ticks, "{:?}", tables.softirqs);
    assert!(tables.run("IRQ_POLL").0 > 0, "on the vCPU that writes: {:?}", tables.softirqs);

    let tables = tables_after_ticks(&["--bottom-half", "pit=workqueue", "--bottom-half", "serial=workqueue"]);
    let [queued, merged, _] = tables.queues["pit"];
    assert!(queued + merged >= ticks, "{:?}", tables.queues);
    assert!(tables.queues["serial"][2] > 0, "{:?}", tables.queues);
    assert_eq!(tables.run("TASKLET"), (0, 0));

    let tables = tables_after_ticks(&["--bottom-half", "serial=inline"]);
    assert_eq!((tables.run("TASKLET"), tables.run("IRQ_POLL")), ((0, 0), (0, 0)));
    assert!(tables.queues.values().all(|queue| queue[0] == 0), "{:?}", tables.queues);
}

/// Voluntary context switches of each thread, by its name: how often it has gone to sleep.
fn sleeps(process: u32) -> BTreeMap<String, u64> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("it runs");
    let mut sleeps = BTreeMap::new();
    for task in tasks {
        let status = fs::read_to_string(task.expect("it runs").path().join("status")).expect("it runs");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("Linux has it");
            line.trim().to_owned()
        };
        *sleeps.entry(field("Name:")).or_default() +=
            field("voluntary_ctxt_switches:").parse::<u64>().expect("a number");
    }
    sleeps
}

/// Between the ticks of a slow timer the guest halts. Each tick wakes the main loop, and that the vCPU; nothing else
/// wakes anybody, however long it is from one to the next.
///
/// Red when: something ticks or polls; a softirq thread, the rescuer or a worker wakes up without need.
#[test]
fn an_idle_guest_wakes_nobody_but_for_its_own_timer() {
    if !can_run() {
        return;
    }
    const PHASES: usize = 4;
    const SLOW_TICKS: u32 = 8;
    let guest = Guest::image(|g| {
        let ticks = g.cell();
        g.handler(PIC_VECTOR, |g| {
            asm!(g; inc ticks.q(););
            g.pic_eoi();
        });
        g.pic(0xfe, 0xff);
        g.pit(2, LONG_PIT_COUNT);
        for _ in 0..=PHASES {
            asm!(g; cli; mov ticks.q(), 0;);
            g.halt_until(ticks, SLOW_TICKS);
            asm!(g; cli;);
            g.print("phase\n");
        }
        let top = g.here();
        asm!(g; pause; jmp top;);
    });
    let (_file, command) = command(&guest, &[]);
    let mut program = Program::start(command);
    let mut looks = Vec::new();
    for phase in 0..=PHASES {
        program.wait_for("phase\n", phase + 1);
        looks.push(sleeps(program.id()));
    }
    program.child.kill().expect("it runs");
    program.finish();

    let (first, last) = (&looks[0], &looks[PHASES]);
    let slept = |name: &str| last[name] - first[name];
    let busy = ["tophalf", "vcpu0"];
    assert!(["softirq/0", "softirq/1", "rescuer"].iter().all(|name| last.contains_key(*name)), "{looks:?}");
    for quiet in last.keys().filter(|name| !busy.contains(&name.as_str())) {
        assert_eq!(slept(quiet), 0, "{quiet}: {looks:?}");
    }
    // One for the tick; the output and its doorbell are a few in each phase.
    let ticks = u64::from(SLOW_TICKS) * PHASES as u64;
    let output = PHASES as u64 * "phase\n".len() as u64 * 2;
    assert!(slept("tophalf") <= 2 * ticks + output, "{looks:?}");
    assert!(slept("vcpu0") <= 2 * ticks, "{looks:?}");
}
