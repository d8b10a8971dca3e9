//! Records, rings, files and the look at a local APIC.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use bottom_half::{Happened, ItemKind, Vector};
use irqchip::lapic::{Config, LocalApic};
use irqchip::mailbox::Mailbox;
use x86::apic::{DeliveryMode, TriggerMode, reg};

use super::event::{Apic, Cause, Eoi, Event, Record, SLOT_BYTES, Slot};
use super::explain::{Question, explain};
use super::file::HEADER_BYTES;
use super::*;
use crate::vcpu::ExitKind;

fn apic(n: u64) -> Apic {
    Apic { tpr: 0x20, ppr: 0x41, irr: [n, 0, 1 << 63, u64::MAX], isr: [0, n, 0, 1] }
}

/// One of each kind.
fn all_events() -> Vec<Event> {
    let (vcpu, vector, mode) = (3, 0xfe, DeliveryMode::LowestPriority);
    vec![
        Event::Thread { name: *b"worker/17\0\0\0\0\0\0\0" },
        Event::Dropped { records: u64::MAX },
        Event::Machine { vcpus: 64, mode: 2 },
        Event::Line { gsi: 23, level: true },
        Event::Line { gsi: 0, level: false },
        Event::PicRequested { input: 15 },
        Event::PicWithdrawn { input: 1 },
        Event::PicAcknowledged { input: 8, vector },
        Event::PicEnded { input: 3 },
        Event::PinSent { pin: 20, vector, level: true },
        Event::PinRefused { pin: 20, level: false },
        Event::PinEnded { pin: 20, asserted: false, damped: true },
        Event::Msi { address: 0xfee0_1234, data: u32::MAX },
        Event::MsiRefused,
        Event::Ipi { from: vcpu, vector, mode },
        Event::InKvm { vector },
        Event::Posted { vcpu, vector, mode: DeliveryMode::ExtInt, level: true },
        Event::Kicked { vcpu, futex: true },
        Event::Entered { vcpu },
        Event::Left { vcpu, exit: ExitKind::Halt },
        Event::Stayed { vcpu, exit: ExitKind::Memory, entered: u64::MAX },
        Event::Slept { vcpu },
        Event::Woke { vcpu },
        Event::Collected { vcpu },
        Event::Taken { vcpu, mode: DeliveryMode::StartUp },
        Event::Requested { vcpu, vector, cause: Cause::Timer, apic: apic(1) },
        Event::Injected { vcpu, vector, apic: apic(2) },
        Event::ExtIntInjected { vcpu, vector },
        Event::NmiInjected { vcpu },
        Event::Marked { vector },
        Event::Ended { vcpu, vector, how: Eoi::Paravirtual, apic: apic(3) },
        Event::Cleared { vcpu, vector, apic: apic(4) },
        Event::Priority { vcpu, apic: apic(5) },
        Event::Deferred {
            happened: Happened::Cancelled,
            kind: ItemKind::Timer,
            vector: Some(Vector::Rcu),
            cpu: Some(64),
            key: u64::MAX,
            queue: *b"watchdog",
        },
        Event::Deferred {
            happened: Happened::Activated,
            kind: ItemKind::Work,
            vector: None,
            cpu: None,
            key: 1,
            queue: [0; 8],
        },
    ]
}

/// Its slots, and how many of them count.
fn encoded(Record { stamp, thread, event }: &Record) -> ([Slot; 3], usize) {
    let head = event.head(*stamp, *thread);
    match event.registers() {
        Some(apic) => ([head, apic.irr, apic.isr], 3),
        None => ([head, [0; 4], [0; 4]], 1),
    }
}

#[test]
fn every_kind_of_record_is_read_as_it_was_written() {
    for event in all_events() {
        let record = Record { stamp: u64::MAX, thread: 0xfffe, event };
        let (slots, used) = encoded(&record);
        assert_eq!(Record::decode(&slots[..used]), Some((record, used)), "{event:?}");
    }
    assert_eq!(Record::decode(&[[0; 4]]), None);
    assert_eq!(Record::decode(&[[0, 0xff, 0, 0]]), None);
    assert_eq!(Record::decode(&[]), None);
}

fn scratch() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("trace");
    (folder, path)
}

#[test]
fn a_recorder_writes_what_its_threads_record_in_their_order() {
    let (_folder, path) = scratch();
    let recorder = Recorder::create(&path).expect("it can be written");
    std::thread::scope(|scope| {
        for vcpu in 0..3 {
            let recorder = Arc::clone(&recorder);
            scope.spawn(move || {
                for data in 0..2000 {
                    recorder.record(Event::Msi { address: vcpu, data });
                    if data % 500 == 0 {
                        recorder.drain();
                    }
                }
            });
        }
    });
    recorder.finish().expect("it can be ended");
    let recording = Recording::read(&path).expect("a good trace");
    assert_eq!((recording.lost, recording.ended_early), (0, None));
    let mut next = [0; 3];
    for record in &recording.records {
        if let Event::Msi { address, data } = record.event {
            assert_eq!(data, next[address as usize]);
            next[address as usize] += 1;
        }
    }
    assert_eq!(next, [2000; 3]);
    let names = recording.records.iter().filter(|record| matches!(record.event, Event::Thread { .. })).count();
    assert_eq!(names, 3);
}

/// What finds no room is counted where it is missing, and once more in all.
#[test]
fn a_full_ring_drops_and_says_how_many() {
    let (_folder, path) = scratch();
    let recorder = Recorder::with_capacity(&path, 16).expect("it can be written");
    // The thread's name takes one place.
    (0..40).for_each(|data| recorder.record(Event::Msi { address: 0, data }));
    recorder.drain();
    (40..50).for_each(|data| recorder.record(Event::Msi { address: 0, data }));
    recorder.drain();
    (50..80).for_each(|data| recorder.record(Event::Msi { address: 0, data }));
    recorder.finish().expect("it can be ended");
    let recording = Recording::read(&path).expect("a good trace");
    let (mut next, mut gaps) = (0, Vec::new());
    for record in &recording.records {
        match record.event {
            Event::Msi { data, .. } => {
                assert_eq!(u64::from(data), next);
                next += 1;
            }
            Event::Dropped { records } => {
                gaps.push((next, records));
                next += records;
            }
            _ => {}
        }
    }
    assert_eq!((gaps, next, recording.lost), (vec![(15, 25), (66, 14)], 80, 39));
    let told = explain(&Story::of(&recording), Question::Summary).expect("a summary");
    assert!(told.starts_with("note: 39 records were lost"), "{told}");
}

fn refusal(path: &Path) -> String {
    match Recording::read(path) {
        Err(crate::Error::Usage(line)) => {
            assert_eq!(line.lines().count(), 1, "{line}");
            line
        }
        other => panic!("{other:?}"),
    }
}

fn good(path: &Path) -> Vec<u8> {
    let recorder = Recorder::create(path).expect("it can be written");
    all_events().into_iter().skip(2).for_each(|event| recorder.record(event));
    recorder.finish().expect("it can be ended");
    fs::read(path).expect("it is there")
}

#[test]
fn a_file_that_is_no_whole_trace_is_refused_in_one_line() {
    let (_folder, path) = scratch();
    let whole = good(&path);
    for length in [1, 7, HEADER_BYTES - 1, HEADER_BYTES, whole.len() - SLOT_BYTES, whole.len() - 1] {
        fs::write(&path, &whole[..length]).expect("written");
        assert!(refusal(&path).contains("is cut short"), "{length}");
    }
    for (bytes, words) in [
        (&b""[..], "is no native trace"),
        (b"{\"traceEvents\":[]}", "is no native trace"),
        (b"\x0a\x20perfetto", "is no native trace"),
        (&[0xff; 4096], "is no native trace"),
    ] {
        fs::write(&path, bytes).expect("written");
        assert!(refusal(&path).contains(words), "{bytes:?}");
    }
    let changed = |at: usize, byte: u8| {
        let mut bytes = whole.clone();
        bytes[at] = byte;
        fs::write(&path, bytes).expect("written");
        refusal(&path)
    };
    assert!(changed(8, 1).contains("is of version 1, and this tophalf reads version 2"));
    assert!(changed(12, 31).contains("is damaged at byte 8"));
    assert!(changed(16, 9).contains("is damaged at byte 8"));
    assert!(changed(16, 0).contains("is cut short"), "still open");
    assert!(changed(HEADER_BYTES + 8, 0xee).contains("is damaged at byte 64"));
    assert!(refusal(Path::new("/nowhere/at all")).contains("can't be read"));
}

/// Damaged in any byte, it is refused or read, and told in words; it never panics.
#[test]
fn no_byte_of_a_file_is_trusted() {
    let (_folder, path) = scratch();
    let whole = good(&path);
    for at in HEADER_BYTES..whole.len() {
        for byte in [0, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] = byte;
            fs::write(&path, bytes).expect("written");
            let Ok(recording) = Recording::read(&path) else { continue };
            let story = Story::of(&recording);
            let text = explain(&story, Question::Slowest(100)).and_then(|_| explain(&story, Question::Lost));
            assert!(text.is_ok_and(|text| text.contains("did not come to their end")));
            if at % 8 == 0 {
                export::write(&story, &path.with_extension("json"), export::Format::Chrome).expect("written");
            }
        }
    }
}

#[test]
fn a_file_that_cannot_be_made_is_refused() {
    for path in ["/nowhere/trace", "/dev/full", "/nowhere/trace.json"] {
        let line = match Recorder::create(Path::new(path)) {
            Err(crate::Error::Usage(line)) => line,
            Err(other) => panic!("{path}: {other:?}"),
            Ok(_) => panic!("{path} was taken"),
        };
        assert!(line.contains("give --trace another file"), "{line}");
    }
}

/// Each change of a local APIC is an event, with the registers after it.
#[test]
fn a_look_sees_what_each_step_has_done() {
    let (_folder, path) = scratch();
    let recorder = Recorder::create(&path).expect("it can be written");
    let trace = Trace::to(Arc::clone(&recorder));
    let config = Config { id: 0, bsp: true, x2apic: true, tsc_deadline: true, cmci: false, physical_bits: 40 };
    let (mut apic, mut watch, mailbox) = (LocalApic::new(config), Watch::default(), Mailbox::default());
    let effect = apic.write_mmio(0, reg::SVR.into(), &0x1ff_u32.to_le_bytes());
    assert_eq!(effect, irqchip::lapic::Effect::Readdressed);
    let mut look = |apic: &LocalApic, cause| watch.look(&trace, 0, apic, cause, Eoi::Register);
    look(&apic, Cause::Other);
    let _ = mailbox.post(0x41, TriggerMode::Edge);
    let _ = mailbox.post(0x52, TriggerMode::Level);
    let _ = apic.collect(&mailbox);
    look(&apic, Cause::Mailbox);
    assert_eq!(apic.acknowledge(), Some(0x52));
    look(&apic, Cause::Other);
    let _ = apic.write_mmio(0, reg::TPR.into(), &0x40_u32.to_le_bytes());
    look(&apic, Cause::Register);
    let _ = apic.eoi();
    look(&apic, Cause::Register);
    apic.init();
    look(&apic, Cause::Other);
    recorder.finish().expect("it can be ended");

    let events: Vec<_> = Recording::read(&path).expect("a good trace").records.iter().map(|r| r.event).collect();
    let (vcpu, low, high) = (0, 1 << (0x41 - 64), 1 << (0x52 - 64));
    let registers = |tpr, ppr, irr, isr| Apic { tpr, ppr, irr: [0, irr, 0, 0], isr: [0, isr, 0, 0] };
    let mailbox = Cause::Mailbox;
    assert_eq!(
        events[1..],
        [
            Event::Requested { vcpu, vector: 0x41, cause: mailbox, apic: registers(0, 0, low, 0) },
            Event::Requested { vcpu, vector: 0x52, cause: mailbox, apic: registers(0, 0, low | high, 0) },
            Event::Injected { vcpu, vector: 0x52, apic: registers(0, 0x50, low, high) },
            Event::Priority { vcpu, apic: registers(0x40, 0x50, low, high) },
            Event::Ended { vcpu, vector: 0x52, how: Eoi::Register, apic: registers(0x40, 0x40, low, 0) },
            Event::Cleared { vcpu, vector: 0x41, apic: registers(0, 0, 0, 0) },
        ]
    );
}

/// A tasklet that is scheduled twice runs once, and queues an item; a timer is started, moved and cancelled.
#[test]
fn deferred_work_is_recorded_from_activation_to_end() {
    let (_folder, path) = scratch();
    let recorder = Recorder::create(&path).expect("it can be written");
    let config = bottom_half::Config { observer: Some(Arc::clone(&recorder) as _), ..Default::default() };
    let port = Arc::new(bottom_half::ThreadPort::default());
    let (system, owners) = bottom_half::System::new(config, vec![port as _]).expect("threads");
    let (ran, has_run) = std::sync::mpsc::channel();
    let queue = system.queue("disk", bottom_half::QueueKind::Ordered);
    let work = queue.work(move |_| ran.send(()).expect("somebody waits for it"));
    let tasklet = bottom_half::Tasklet::new(&system, owners[0].cpu(), move |_| _ = work.queue());
    let timer = bottom_half::Timer::precise(owners[0].cpu(), |_| None);
    owners[0].top_half(|_| {
        let _ = (tasklet.schedule(), tasklet.schedule());
        let _ = (timer.start(u64::MAX / 2), timer.start(u64::MAX / 4), timer.cancel());
    });
    has_run.recv().expect("it runs");
    system.shutdown(None).expect("nothing is stuck");
    recorder.finish().expect("it can be ended");

    let story = Story::of(&Recording::read(&path).expect("a good trace"));
    // TIMER has that of the queues' watchdog.
    let ours: Vec<_> = story.items.iter().filter(|item| item.vector != Some(Vector::Timer)).collect();
    let one = |kind: ItemKind| {
        let mut all = ours.iter().copied().filter(|item| item.kind == kind);
        let item = all.next().unwrap_or_else(|| panic!("no {kind:?} in {:?}", story.items));
        assert_eq!(all.next(), None);
        item
    };
    let [softirq, tasklet, work, timer] =
        [ItemKind::Softirq, ItemKind::Tasklet, ItemKind::Work, ItemKind::Timer].map(one);
    assert_eq!((tasklet.activated.len(), softirq.activated.len(), work.activated.len()), (2, 1, 1));
    assert_eq!((work.queue.as_str(), work.cause), ("disk", Some(Activator::Item(tasklet.id))));
    for item in [softirq, tasklet, work] {
        let (run, _) = item.run.expect("it has run");
        assert!(item.activated[0].0 < run && Some(run) < item.done, "{item:?}");
    }
    assert_ne!(work.run.map(|run| run.1), tasklet.run.map(|run| run.1), "on another thread");
    assert!(timer.cancelled && timer.run.is_none() && !timer.is_lost(), "{timer:?}");
    let told = explain(&story, Question::Item(work.id)).expect("it is there");
    assert!(told.contains("work item of queue disk") && told.contains("activated by d"), "{told}");
}

/// A request through the 8259A pair, with an EOI and with automatic EOI; and one that is gone when it is acknowledged.
#[test]
fn what_the_8259a_pair_does_is_seen_from_outside() {
    let (_folder, path) = scratch();
    let recorder = Recorder::create(&path).expect("it can be written");
    let trace = Trace::to(Arc::clone(&recorder));
    let mut pic = irqchip::pic::PicPair::new();
    let change = |pic: &mut irqchip::pic::PicPair, f: &dyn Fn(&mut irqchip::pic::PicPair) -> Option<u8>| {
        let before = trace.before_pic(pic);
        let vector = f(pic);
        trace.after_pic(before, pic, vector);
    };
    let write = |pic: &mut irqchip::pic::PicPair, port: u16, byte: u8| {
        pic.write(irqchip::pic::PicPort::from_io(port).expect("a port of the pair"), byte);
    };
    for (icw4, ends_itself) in [(1, false), (3, true)] {
        for (port, bytes) in [(0x20, [0x11, 0x20, 4, icw4]), (0xa0, [0x11, 0x28, 2, 1])] {
            change(&mut pic, &|pic| {
                write(pic, port, bytes[0]);
                bytes[1..].iter().for_each(|&byte| write(pic, port + 1, byte));
                write(pic, port + 1, 0);
                None
            });
        }
        change(&mut pic, &|pic| {
            pic.set_line(3, true);
            None
        });
        change(&mut pic, &|pic| Some(pic.acknowledge()));
        if !ends_itself {
            change(&mut pic, &|pic| {
                write(pic, 0x20, 0x20);
                None
            });
        }
        change(&mut pic, &|pic| {
            pic.set_line(3, false);
            None
        });
    }
    change(&mut pic, &|pic| Some(pic.acknowledge()));
    recorder.finish().expect("it can be ended");
    let events: Vec<_> = Recording::read(&path).expect("a good trace").records.iter().map(|r| r.event).collect();
    let input = 3;
    let life =
        [Event::PicRequested { input }, Event::PicAcknowledged { input, vector: 0x23 }, Event::PicEnded { input }];
    assert_eq!(events[1..], [life, life].concat(), "and of the spurious one nothing");
}
