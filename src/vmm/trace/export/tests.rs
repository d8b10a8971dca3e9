//! Exports are read back by decoders that know nothing of the writers: serde_json, and prost with the published messages.

use std::collections::{HashMap, HashSet};

use bottom_half::{Happened, ItemKind, Vector};
use prost::Message;
use serde_json::Value;
use x86::apic::DeliveryMode;

use super::*;
use crate::trace::event::{Apic, Cause, Eoi, Event, Record};
use crate::vcpu::ExitKind;

/// What of the published schema (protos/perfetto/trace) is looked at.
mod schema {
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Trace {
        #[prost(message, repeated, tag = "1")]
        pub packet: Vec<TracePacket>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct TracePacket {
        #[prost(uint64, optional, tag = "8")]
        pub timestamp: Option<u64>,
        #[prost(uint32, optional, tag = "10")]
        pub trusted_packet_sequence_id: Option<u32>,
        #[prost(message, optional, tag = "11")]
        pub track_event: Option<TrackEvent>,
        #[prost(message, optional, tag = "60")]
        pub track_descriptor: Option<TrackDescriptor>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct TrackDescriptor {
        #[prost(uint64, optional, tag = "1")]
        pub uuid: Option<u64>,
        #[prost(string, optional, tag = "2")]
        pub name: Option<String>,
        #[prost(uint64, optional, tag = "5")]
        pub parent_uuid: Option<u64>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct TrackEvent {
        #[prost(message, repeated, tag = "4")]
        pub debug_annotations: Vec<DebugAnnotation>,
        #[prost(int32, optional, tag = "9")]
        pub kind: Option<i32>,
        #[prost(uint64, optional, tag = "11")]
        pub track_uuid: Option<u64>,
        #[prost(string, optional, tag = "23")]
        pub name: Option<String>,
        #[prost(fixed64, repeated, packed = "false", tag = "47")]
        pub flow_ids: Vec<u64>,
        #[prost(fixed64, repeated, packed = "false", tag = "48")]
        pub terminating_flow_ids: Vec<u64>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct DebugAnnotation {
        #[prost(string, optional, tag = "6")]
        pub string_value: Option<String>,
        #[prost(string, optional, tag = "10")]
        pub name: Option<String>,
    }
}

/// A device's timer runs on a worker, raises a line, and the interrupt's handler on vCPU 0 sends an IPI to vCPU 1, whose
/// handler queues an item; a hundred times.
fn story() -> Story {
    let mut records = Vec::new();
    let mut now = 1000;
    let mut add = |thread: u16, event: Event| {
        now += 7;
        records.push(Record { stamp: now, thread, event });
    };
    for (thread, name) in [(0, *b"vcpu0\0\0\0\0\0\0\0\0\0\0\0"), (1, *b"vcpu1\0\0\0\0\0\0\0\0\0\0\0")] {
        add(thread, Event::Thread { name });
    }
    add(2, Event::Thread { name: *b"worker/0\0\0\0\0\0\0\0\0" });
    let deferred = |happened| Event::Deferred {
        happened,
        kind: ItemKind::Timer,
        vector: Some(Vector::HrTimer),
        cpu: Some(2),
        key: 5,
        queue: [0; 8],
    };
    let fixed = DeliveryMode::Fixed;
    let (idle, low, high) = (Apic::default(), 0x41, 0x52);
    for vcpu in 0..2 {
        add(vcpu as u16, Event::Entered { vcpu });
    }
    for _ in 0..100 {
        add(1, deferred(Happened::Activated));
        add(2, deferred(Happened::Run));
        add(2, Event::Line { gsi: 9, level: true });
        add(2, Event::PinSent { pin: 9, vector: low, level: true });
        add(2, Event::Posted { vcpu: 0, vector: low, mode: fixed, level: true });
        add(2, deferred(Happened::Done));
        add(2, Event::Kicked { vcpu: 0, futex: false });
        add(0, Event::Left { vcpu: 0, exit: ExitKind::Interrupted });
        add(0, Event::Requested { vcpu: 0, vector: low, cause: Cause::Mailbox, apic: idle });
        add(0, Event::Injected { vcpu: 0, vector: low, apic: idle });
        add(0, Event::Entered { vcpu: 0 });
        add(0, Event::Left { vcpu: 0, exit: ExitKind::Memory });
        add(0, Event::Ipi { from: 0, vector: high, mode: fixed });
        add(0, Event::Posted { vcpu: 1, vector: high, mode: fixed, level: false });
        add(1, Event::Left { vcpu: 1, exit: ExitKind::Interrupted });
        add(1, Event::Requested { vcpu: 1, vector: high, cause: Cause::Mailbox, apic: idle });
        add(1, Event::Injected { vcpu: 1, vector: high, apic: idle });
        add(1, Event::Entered { vcpu: 1 });
        add(2, Event::Line { gsi: 9, level: false });
        add(0, Event::Ended { vcpu: 0, vector: low, how: Eoi::Register, apic: idle });
        add(0, Event::PinEnded { pin: 9, asserted: false, damped: false });
        add(0, Event::Entered { vcpu: 0 });
        add(1, Event::Left { vcpu: 1, exit: ExitKind::Memory });
        add(1, Event::Ended { vcpu: 1, vector: high, how: Eoi::Register, apic: idle });
        add(1, Event::Entered { vcpu: 1 });
    }
    Story::of(&Recording { records, start: 1000, lost: 0, ended_early: None })
}

fn exported(write: impl FnOnce(&Timeline, &mut Vec<u8>) -> std::io::Result<()>) -> Vec<u8> {
    let mut out = Vec::new();
    write(&Timeline::of(&story()), &mut out).expect("memory takes it all");
    out
}

/// Each arrow begins in a slice, goes on in slices, and ends in one that is there at that time on that track.
#[test]
fn every_flow_of_the_chrome_export_is_bound_to_slices() {
    let json: Value = serde_json::from_slice(&exported(chrome::write)).expect("JSON");
    let events = json["traceEvents"].as_array().expect("a list of events");
    let ns = |value: &Value| (value.as_f64().expect("a number") * 1000.0).round() as u64;
    let tid = |event: &Value| event["tid"].as_u64().expect("a track");
    let mut slices: HashMap<u64, Vec<(u64, u64)>> = HashMap::new();
    let mut named: HashSet<u64> = HashSet::new();
    for event in events {
        match event["ph"].as_str().expect("a phase") {
            "X" => slices.entry(tid(event)).or_default().push((ns(&event["ts"]), ns(&event["dur"]))),
            "M" if event["name"] == "thread_name" => _ = named.insert(tid(event)),
            _ => {}
        }
    }
    assert!(slices.keys().all(|track| named.contains(track)), "each track has a name");
    let mut flows: HashMap<u64, Vec<(&str, u64)>> = HashMap::new();
    for event in events {
        let phase = event["ph"].as_str().expect("a phase");
        if !matches!(phase, "s" | "t" | "f") {
            continue;
        }
        let at = ns(&event["ts"]);
        let is_in = |&(from, length): &(u64, u64)| from <= at && at < from + length;
        assert!(slices[&tid(event)].iter().any(is_in), "{event}");
        flows.entry(event["id"].as_u64().expect("a number")).or_default().push((phase, at));
    }
    // 100 of each: pin, IPI, item.
    assert_eq!(flows.len(), 300);
    for (id, flow) in flows {
        let phases: String = flow.iter().map(|(phase, _)| *phase).collect();
        let middle = phases.trim_matches('t');
        assert!(phases.starts_with('s') && phases.ends_with('f') && middle == phases, "flow {id}: {phases}");
        assert!(flow.windows(2).all(|pair| pair[0].1 <= pair[1].1), "flow {id} goes on in time");
    }
}

#[test]
fn the_perfetto_export_follows_the_published_schema() {
    let bytes = exported(perfetto::write);
    let trace = schema::Trace::decode(&bytes[..]).expect("protobuf");
    let descriptors: Vec<_> = trace.packet.iter().filter_map(|packet| packet.track_descriptor.as_ref()).collect();
    let names: HashMap<u64, &str> =
        descriptors.iter().filter_map(|track| Some((track.uuid?, track.name.as_deref()?))).collect();
    for name in ["vCPU 0", "vCPU 1", "worker/0", "I/O APIC", "8259A pair"] {
        assert!(names.values().any(|known| *known == name), "no track {name}: {names:?}");
    }
    let parents = descriptors.iter().filter_map(|track| track.parent_uuid);
    assert!(parents.into_iter().all(|parent| names.contains_key(&parent)));
    let mut depth: HashMap<u64, u32> = HashMap::new();
    let mut last = 0;
    let mut flows: HashMap<u64, (u32, u32)> = HashMap::new();
    for packet in &trace.packet {
        assert_eq!(packet.trusted_packet_sequence_id, Some(1));
        let Some(event) = &packet.track_event else { continue };
        let (time, track) = (packet.timestamp.expect("a time"), event.track_uuid.expect("a track"));
        assert!(time >= last && names.contains_key(&track));
        last = time;
        let open = depth.entry(track).or_default();
        match event.kind {
            Some(1) => *open += 1,
            Some(2) => *open = open.checked_sub(1).expect("nothing ends that has not begun"),
            other => panic!("{other:?}"),
        }
        assert_eq!(event.name.is_some(), event.kind == Some(1));
        for flow in &event.flow_ids {
            let (steps, ends) = flows.entry(*flow).or_default();
            assert_eq!(*ends, 0, "flow {flow} goes on after its end");
            *steps += 1;
        }
        event.terminating_flow_ids.iter().for_each(|flow| flows.entry(*flow).or_default().1 += 1);
    }
    assert!(depth.values().all(|&open| open == 0), "all that begins ends: {depth:?}");
    assert_eq!(flows.len(), 300);
    assert!(flows.values().all(|&(steps, ends)| steps >= 1 && ends == 1), "{flows:?}");
}

/// Slices of a track are one in the other or apart, or a viewer shows nonsense.
#[test]
fn slices_of_a_track_nest() {
    let timeline = Timeline::of(&story());
    let mut by_track: HashMap<u64, Vec<&Slice>> = HashMap::new();
    timeline.slices.iter().for_each(|slice| by_track.entry(slice.track).or_default().push(slice));
    for slices in by_track.values() {
        let mut open: Vec<u64> = Vec::new();
        for slice in slices {
            while open.last().is_some_and(|&end| end <= slice.from) {
                open.pop();
            }
            assert!(open.last().is_none_or(|&end| slice.to <= end), "{slice:?}");
            open.push(slice.to);
        }
    }
}

#[test]
fn a_files_name_says_its_format() {
    for (name, format) in [
        ("a.json", Format::Chrome),
        ("a.pftrace", Format::Perfetto),
        ("a.perfetto-trace", Format::Perfetto),
        ("a", Format::Native),
        ("a.trace", Format::Native),
        ("json", Format::Native),
    ] {
        assert_eq!(Format::of(Path::new(name)), format, "{name}");
    }
}
