"""Prints what TensorBoard's two readers find in each event folder below the folder given, as JSON.

`EventAccumulator` is the older one, which other programs use. TensorBoard itself uses the other one if its data server
is missing or switched off (--load_fast=false); that one keeps everything as tensors, and treats the first session start
that it finds as the beginning, not as a restart."""

import json
import pathlib
import sys

from tensorboard.backend.event_processing import event_accumulator, plugin_event_accumulator
from tensorboard.util import tensor_util

# A size of 0 keeps everything; purging is what TensorBoard itself does after a restart.
KEEP_ALL = {"scalars": 0, "histograms": 0, "tensors": 0}


def read(folder):
    events = event_accumulator.EventAccumulator(str(folder), size_guidance=KEEP_ALL, purge_orphaned_data=True).Reload()
    tags = events.Tags()
    texts = [tag for tag in tags["tensors"] if events.SummaryMetadata(tag).plugin_data.plugin_name == "text"]
    return {
        "scalars": {tag: [[e.step, str(e.value)] for e in events.Scalars(tag)] for tag in tags["scalars"]},
        "times": sorted({e.wall_time for tag in tags["scalars"] for e in events.Scalars(tag)}),
        "texts": {
            tag: [[e.step, e.tensor_proto.string_val[0].decode()] for e in events.Tensors(tag)] for tag in texts
        },
        "histograms": {
            tag: [
                [e.step, h.min, h.max, h.num, h.sum, h.sum_squares, list(h.bucket_limit), list(h.bucket)]
                for e in events.Histograms(tag)
                for h in [e.histogram_value]
            ]
            for tag in tags["histograms"]
        },
    }


def read_as_tensorboard(folder):
    events = plugin_event_accumulator.EventAccumulator(str(folder), size_guidance=KEEP_ALL).Reload()
    found = {"scalars": {}, "texts": {}, "histograms": {}}
    for tag in events.Tags()["tensors"]:
        kind = {"text": "texts"}.get(plugin := events.SummaryMetadata(tag).plugin_data.plugin_name, plugin)
        values = [[e.step, tensor_util.make_ndarray(e.tensor_proto)] for e in events.Tensors(tag)]
        if kind == "scalars":
            found[kind][tag] = [[step, str(value.item())] for step, value in values]
        elif kind == "texts":
            found[kind][tag] = [[step, value.item().decode()] for step, value in values]
        else:
            found[kind][tag] = [step for step, _ in values]
    return found


root = pathlib.Path(sys.argv[1])
found = {folder.name: read(folder) for folder in sorted(root.iterdir())}
for name in found:
    found[name]["tensorboard"] = read_as_tensorboard(root / name)
print(json.dumps(found))
