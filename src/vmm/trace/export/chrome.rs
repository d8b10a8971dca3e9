//! Chrome's JSON ("Trace Event Format", JSON Object Format): complete events, flow events, and names of threads.

use std::collections::HashMap;
use std::io::{self, Write};

use serde_json::{Map, Value, json};

use super::timeline::Timeline;

/// Writes it.
pub fn write(timeline: &Timeline, out: &mut impl Write) -> io::Result<()> {
    let mut first = true;
    let mut event = |out: &mut dyn Write, value: Value| -> io::Result<()> {
        out.write_all(if std::mem::take(&mut first) { b"\n" } else { b",\n" })?;
        Ok(serde_json::to_writer(out, &value)?)
    };
    out.write_all(b"{\"displayTimeUnit\":\"ns\",\"traceEvents\":[")?;
    event(out, json!({"ph": "M", "pid": 1, "tid": 0, "name": "process_name", "args": {"name": "machine"}}))?;
    for (order, track) in timeline.tracks.iter().enumerate() {
        let name = json!({"ph": "M", "pid": 1, "tid": track.id, "name": "thread_name", "args": {"name": track.name}});
        event(out, name)?;
        let sort = json!({"sort_index": order});
        event(out, json!({"ph": "M", "pid": 1, "tid": track.id, "name": "thread_sort_index", "args": sort}))?;
    }
    // A flow has a beginning, steps and an end: how many more are to come.
    let mut left: HashMap<u64, (usize, usize)> = HashMap::new();
    for &flow in timeline.slices.iter().flat_map(|slice| &slice.flows) {
        left.entry(flow).or_default().0 += 1;
    }
    for slice in &timeline.slices {
        let details: Map<_, _> =
            slice.details.iter().map(|(name, value)| ((*name).to_owned(), value.clone().into())).collect();
        let (at, length) = (micros(slice.from), micros(slice.to - slice.from));
        let name = &slice.name;
        event(
            out,
            json!({"ph": "X", "pid": 1, "tid": slice.track, "ts": at, "dur": length, "name": name, "args": details}),
        )?;
        for &flow in &slice.flows {
            let Some((all, done)) = left.get_mut(&flow) else { continue };
            *done += 1;
            let phase = if *done == 1 {
                "s"
            } else if done == all {
                "f"
            } else {
                "t"
            };
            let mut arrow = json!({
                "ph": phase, "pid": 1, "tid": slice.track, "ts": at, "id": flow, "cat": "interrupt", "name": "cause",
            });
            if phase == "f" {
                arrow["bp"] = "e".into();
            }
            event(out, arrow)?;
        }
    }
    out.write_all(b"\n]}\n")
}

/// Times are in microseconds.
fn micros(ns: u64) -> f64 {
    ns as f64 / 1000.0
}
