use std::sync::atomic::AtomicU32 as StdU32;

use super::*;
use crate::system::Config;
use crate::testing::{Gate, Log, Recorder, one_cpu, wait_for};

#[test]
fn it_runs_once_for_many_schedules_and_again_when_scheduled_again() {
    let (system, owner, _port) = one_cpu();
    let tasklet = Tasklet::new(&system, owner.cpu(), |_| ());
    owner.top_half(|_| {
        assert_eq!([tasklet.schedule(), tasklet.schedule()], [Scheduled::Yes, Scheduled::Already]);
        assert!(tasklet.is_scheduled());
    });
    assert_eq!((tasklet.runs(), tasklet.is_scheduled()), (1, false));
    owner.top_half(|_| tasklet.schedule());
    assert_eq!(tasklet.runs(), 2);
}

#[test]
fn high_ones_run_first_and_each_list_in_order() {
    let (system, owner, _port) = one_cpu();
    let log = Log::default();
    let make = |name: &'static str, vector| {
        let log = log.clone();
        Tasklet::on_vector(&system, owner.cpu(), vector, move |_| log.add(name))
    };
    let tasklets = [("a", Vector::Tasklet), ("b", Vector::NetRx), ("c", Vector::Tasklet), ("d", Vector::Hi)]
        .map(|(n, v)| make(n, v));
    owner.top_half(|_| tasklets.iter().for_each(|tasklet| assert_eq!(tasklet.schedule(), Scheduled::Yes)));
    assert_eq!(log.take(), ["d", "b", "a", "c"]);
}

#[test]
fn a_disabled_one_stays_scheduled_and_nobody_spins_on_it() {
    let (system, owner, port) = one_cpu();
    let tasklet = Tasklet::new(&system, owner.cpu(), |_| ());
    tasklet.disable();
    tasklet.disable();
    owner.top_half(|_| tasklet.schedule());
    assert_eq!((tasklet.runs(), tasklet.is_scheduled()), (0, true));
    let rounds = owner.cpu().stats().rounds;
    owner.top_half(|_| ());
    assert_eq!(owner.cpu().stats().rounds, rounds, "there is nothing to do");
    tasklet.enable();
    owner.top_half(|_| ());
    assert_eq!(tasklet.runs(), 0);
    tasklet.enable();
    assert_eq!(port.kicks(), 1, "enabled from elsewhere: the CPU must come and run it");
    owner.top_half(|_| ());
    assert_eq!((tasklet.runs(), tasklet.is_scheduled()), (1, false));
}

#[test]
fn one_that_wants_another_turn_gets_it_and_others_get_theirs() {
    let (system, owner, _port) = one_cpu();
    let log = Log::default();
    let (greedy_log, other_log) = (log.clone(), log.clone());
    let left = StdU32::new(3);
    let greedy = Tasklet::on_vector(&system, owner.cpu(), Vector::NetRx, move |_| {
        greedy_log.add("greedy");
        if left.fetch_sub(1, Ordering::SeqCst) > 1 { Turn::Again } else { Turn::Done }
    });
    let other = Tasklet::on_vector(&system, owner.cpu(), Vector::NetRx, move |_| other_log.add("other"));
    owner.top_half(|_| {
        greedy.schedule();
        other.schedule();
    });
    assert_eq!(log.take(), ["greedy", "other", "greedy", "greedy"]);
}

#[test]
fn it_never_runs_on_two_cpus_at_once_and_loses_no_schedule() {
    let ports = [Arc::new(Recorder::default()), Arc::new(Recorder::default())];
    let (system, owners) = System::new(Config::default(), ports.map(|port| port as _).to_vec()).unwrap();
    let inside = Arc::new(StdU32::new(0));
    let seen = Arc::clone(&inside);
    let tasklet = Tasklet::new(&system, owners[0].cpu(), move |_| {
        assert_eq!(seen.fetch_add(1, Ordering::SeqCst), 0, "on two CPUs at once");
        std::thread::yield_now();
        seen.fetch_sub(1, Ordering::SeqCst);
    });
    let scheduled = StdU32::new(0);
    std::thread::scope(|scope| {
        for owner in owners {
            let (tasklet, scheduled) = (&tasklet, &scheduled);
            scope.spawn(move || {
                for _ in 0..2000 {
                    if owner.top_half(|_| tasklet.schedule()) == Scheduled::Yes {
                        scheduled.fetch_add(1, Ordering::SeqCst);
                    }
                }
                // What was parked is put on a list of the CPU where it ran, or handed to its softirq thread.
                wait_for(|| {
                    owner.top_half(|_| ());
                    !tasklet.is_scheduled()
                });
            });
        }
    });
    // The last run may be under way, on a softirq thread.
    tasklet.disable_and_wait(&Process::of_thread());
    assert_eq!(tasklet.runs(), u64::from(scheduled.load(Ordering::SeqCst)));
}

#[test]
fn disabling_with_waiting_waits_for_the_run_and_killing_ends_it() {
    let (system, owner, _port) = one_cpu();
    let (entered, gate) = (Gate::default(), Gate::default());
    let (entered_there, gate_there) = (entered.clone(), gate.clone());
    let tasklet = Tasklet::new(&system, owner.cpu(), move |_| {
        entered_there.open();
        gate_there.wait();
    });
    let over = StdU32::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let owner = owner;
            owner.top_half(|_| tasklet.schedule());
            over.store(1, Ordering::SeqCst);
            wait_for(|| over.load(Ordering::SeqCst) == 2);
            // It was killed meanwhile, while it was scheduled.
            owner.top_half(|_| ());
        });
        entered.wait();
        assert_eq!(tasklet.schedule(), Scheduled::Yes, "it runs: scheduled once more");
        tasklet.disable();
        gate.open();
        tasklet.disable_and_wait(&Process::of_thread());
        assert_eq!(tasklet.runs(), 1);
        wait_for(|| over.load(Ordering::SeqCst) == 1);
        assert!(tasklet.kill(&Process::of_thread()), "it was scheduled, and is not any more");
        assert_eq!(tasklet.schedule(), Scheduled::Killed);
        tasklet.enable();
        tasklet.enable();
        over.store(2, Ordering::SeqCst);
    });
    assert_eq!(tasklet.runs(), 1);
}

#[test]
fn a_dropped_tasklet_is_forgotten_wherever_it_was() {
    let (system, owner, _port) = one_cpu();
    let alive = Arc::new(());
    let make = || {
        let alive = Arc::clone(&alive);
        Tasklet::new(&system, owner.cpu(), move |_| drop(Arc::clone(&alive)))
    };
    let (idle, listed, parked) = (make(), make(), make());
    parked.disable();
    owner.top_half(|_| parked.schedule());
    owner.top_half(|_| {
        listed.schedule();
        drop((idle, listed, parked));
    });
    assert_eq!(Arc::strong_count(&alive), 1);
    assert_eq!(system.shared().tasklets.lock().iter().count(), 0);
}

#[test]
fn scheduling_is_counted() {
    let (system, owner, _port) = one_cpu();
    let tasklet = Tasklet::new(&system, owner.cpu(), |_| ());
    owner.top_half(|_| (0..3).for_each(|_| _ = tasklet.schedule()));
    let stats = owner.cpu().stats();
    assert_eq!((stats.queued, stats.merged, stats.run[Vector::Tasklet.index()]), (1, 2, 1));
}
