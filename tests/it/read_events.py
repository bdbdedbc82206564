"""Prints what TensorBoard's own reader finds in each event folder below the folder given, as JSON."""

import json
import pathlib
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def read(folder):
    # A size of 0 keeps everything; purging is what TensorBoard itself does after a restart.
    sizes = {"scalars": 0, "histograms": 0, "tensors": 0}
    events = EventAccumulator(str(folder), size_guidance=sizes, purge_orphaned_data=True).Reload()
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


root = pathlib.Path(sys.argv[1])
print(json.dumps({folder.name: read(folder) for folder in sorted(root.iterdir())}))
