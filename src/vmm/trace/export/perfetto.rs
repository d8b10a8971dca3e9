//! Perfetto's protobuf: what of perfetto.protos.Trace a timeline needs. The field numbers are those of trace.proto,
//! trace_packet.proto, track_descriptor.proto, track_event.proto and debug_annotation.proto.

use std::io::{self, Write};

use super::timeline::{Slice, Timeline};

/// The one sequence of packets.
const SEQUENCE: u64 = 1;
/// TracePacket.SEQ_INCREMENTAL_STATE_CLEARED.
const STATE_CLEARED: u64 = 1;
/// TrackEvent.Type.
const SLICE_BEGIN: u64 = 1;
const SLICE_END: u64 = 2;
/// TrackDescriptor.ChildTracksOrdering.EXPLICIT.
const EXPLICIT: u64 = 3;
/// The track that all others are below: the machine.
const MACHINE: u64 = 1 << 40;

/// Writes it.
pub fn write(timeline: &Timeline, out: &mut impl Write) -> io::Result<()> {
    packet(out, |packet| {
        packet.number(13, STATE_CLEARED);
        packet.message(60, |track| {
            track.number(1, MACHINE);
            track.text(2, "machine");
            track.number(11, EXPLICIT);
        });
    })?;
    for (order, shown) in timeline.tracks.iter().enumerate() {
        packet(out, |packet| {
            packet.message(60, |track| {
                track.number(1, shown.id);
                track.text(2, &shown.name);
                track.number(5, MACHINE);
                track.number(12, order as u64);
            });
        })?;
    }
    let mut last = std::collections::HashMap::new();
    for (at, slice) in timeline.slices.iter().enumerate() {
        slice.flows.iter().for_each(|&flow| _ = last.insert(flow, at));
    }
    // Begins and ends in the order of time; at one time, ends come first, the inner ones before the outer.
    let mut edges: Vec<(u64, bool, usize)> = Vec::new();
    for (at, slice) in timeline.slices.iter().enumerate() {
        edges.push((slice.from, true, at));
        edges.push((slice.to, false, at));
    }
    edges.sort_by_key(|&(time, begins, at)| (time, begins, if begins { at as i64 } else { -(at as i64) }));
    for (time, begins, at) in edges {
        let slice = &timeline.slices[at];
        packet(out, |packet| {
            packet.number(8, time);
            packet.message(11, |event| {
                event.number(9, if begins { SLICE_BEGIN } else { SLICE_END });
                event.number(11, slice.track);
                if begins {
                    describe(event, slice, |flow| last.get(&flow) == Some(&at));
                }
            });
        })?;
    }
    Ok(())
}

fn describe(event: &mut Message, slice: &Slice, ends_here: impl Fn(u64) -> bool) {
    event.text(23, &slice.name);
    for &flow in &slice.flows {
        event.fixed64(if ends_here(flow) { 48 } else { 47 }, flow);
    }
    for (name, value) in &slice.details {
        event.message(4, |detail| {
            detail.text(10, name);
            detail.text(6, value);
        });
    }
}

/// A TracePacket, as the field of the Trace that it is.
fn packet(out: &mut impl Write, fill: impl FnOnce(&mut Message)) -> io::Result<()> {
    let mut trace = Message::default();
    trace.message(1, |packet| {
        packet.number(10, SEQUENCE);
        fill(packet);
    });
    out.write_all(&trace.0)
}

/// An encoded message (Protocol Buffers, "Encoding").
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }

    fn fixed64(&mut self, field: u64, value: u64) {
        self.varint(field << 3 | 1);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
    }

    fn text(&mut self, field: u64, text: &str) {
        self.bytes(field, text.as_bytes());
    }

    fn message(&mut self, field: u64, fill: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        fill(&mut inner);
        self.bytes(field, &inner.0);
    }
}
