#!/usr/bin/env python3
"""Reads an export with Perfetto's own protobuf classes: each slice ends, each flow goes through two slices or more.

Usage: check_trace.py FILE.pftrace (needs `pip install perfetto`)
"""

import collections
import sys

from google.protobuf.unknown_fields import UnknownFieldSet
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TrackEvent


def main(path):
    trace = Trace()
    with open(path, "rb") as file:
        trace.ParseFromString(file.read())
    tracks, open_slices = {}, collections.Counter()
    flows, ended, slices, last = collections.defaultdict(set), set(), 0, 0
    for packet in trace.packet:
        assert not len(UnknownFieldSet(packet)), "a field that the schema does not have"
        if packet.HasField("track_descriptor"):
            tracks[packet.track_descriptor.uuid] = packet.track_descriptor.name
        if not packet.HasField("track_event"):
            continue
        event = packet.track_event
        assert not len(UnknownFieldSet(event)), "a field that the schema does not have"
        assert event.track_uuid in tracks, f"no track {event.track_uuid}"
        assert packet.timestamp >= last, "time goes back"
        last = packet.timestamp
        if event.type == TrackEvent.TYPE_SLICE_BEGIN:
            slices += 1
            open_slices[event.track_uuid] += 1
            for flow in list(event.flow_ids) + list(event.terminating_flow_ids):
                assert flow not in ended, f"flow {flow} goes on after its end"
                flows[flow].add(slices)
            ended.update(event.terminating_flow_ids)
        elif event.type == TrackEvent.TYPE_SLICE_END:
            open_slices[event.track_uuid] -= 1
            assert open_slices[event.track_uuid] >= 0, "a slice ends that has not begun"
        else:
            raise AssertionError(f"unexpected event of type {event.type}")
    assert not any(open_slices.values()), "a slice does not end"
    alone = [flow for flow, through in flows.items() if len(through) < 2]
    assert not alone, f"flows with one end: {alone[:5]}"
    print(f"{len(tracks)} tracks, {slices} slices, {len(flows)} flows: good")


if __name__ == "__main__":
    main(sys.argv[1])
