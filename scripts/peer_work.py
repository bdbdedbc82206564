"""The work of a peer's measurement: that of `ppo-train bench --json`, from its file.

A peer that is given that file does a step of the same shapes: as many prompts and responses of the same lengths, in
the same precision, with as many threads. It prints JSON in the same form, which `ppo-train bench --against` reads.
"""

import argparse
import json
import resource
import statistics
import sys
from pathlib import Path

SCORES = ["old_log_prob", "ref", "values"]
UPDATES = ["update_critic", "update_actor"]


class Work:
    """What is to be done."""

    def __init__(self, about):
        parser = argparse.ArgumentParser(description=about)
        parser.add_argument("config", type=Path, help="the config.json of the model; its weights are random")
        parser.add_argument("like", type=Path, help="what `ppo-train bench --json` printed for the same model")
        parser.add_argument("--steps", type=int, default=3, help="steps to measure, after one that is not counted")
        parser.add_argument("--precision", choices=["bfloat16", "float32"], help="another one than the file's")
        given = parser.parse_args()
        self.config = json.loads(given.config.read_text())
        measured = json.loads(given.like.read_text())
        if "shapes" not in measured:
            sys.exit(f"{given.like} has no shapes: expected what `ppo-train bench --json` prints")
        shapes = measured["shapes"]
        self.steps = max(given.steps, 1)
        self.precision = given.precision or shapes["precision"]
        self.micro_batch_tokens = shapes["micro_batch_tokens"]
        self.threads = measured["machine"]["threads"]
        self.text = measured["work"]
        # One entry per response; those to a prompt are side by side.
        samples = len(shapes["responses"]) // len(shapes["prompts"])
        self.prompts = [tokens for tokens in shapes["prompts"] for _ in range(samples)]
        self.responses = shapes["responses"]

    @property
    def lengths(self):
        """Tokens of each sequence."""
        return [p + r for p, r in zip(self.prompts, self.responses, strict=True)]

    def report(self, peer, times, gemm=None):
        """Prints the medians of `times`, a dictionary of seconds by stage for each step."""
        tokens = {"gen": sum(self.responses)} | dict.fromkeys(SCORES + UPDATES, sum(self.lengths))
        stages = {
            name: {"seconds": (s := statistics.median(t[name] for t in times)), "tokens": n, "tokens_per_s": n / s}
            for name, n in tokens.items()
            if name in times[0]
        }

        def rate(names):
            seconds = sum(stages[name]["seconds"] for name in names if name in stages)
            return sum(tokens[name] for name in names if name in stages) / seconds if seconds else None

        whole = [sum(t.values()) for t in times] if "update_actor" in stages else []
        print(
            json.dumps(
                {
                    "peer": peer,
                    "work": self.text,
                    "precision": self.precision,
                    "threads": self.threads,
                    "rollout_tok_s": rate(["gen"]),
                    "score_tok_s": rate(SCORES),
                    "update_tok_s": rate(UPDATES),
                    "step_s": statistics.median(whole) if whole else None,
                    "gemm_gflops": gemm,
                    "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
                    "stages": stages,
                },
                indent=2,
            )
        )
