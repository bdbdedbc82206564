"""The table of scripts/measure_gpu: seconds per stage beside verl's.

    scripts/measure_gpu.py NAME_OF_THE_GPU bench.json

bench.json is what `ppo-train bench --json` printed.
"""

import json
import sys

# One step of verl: Qwen2.5-3B, full fine-tuning, two A100 of 80 GB, 256 responses of about 600 tokens; seconds.
VERL_GPUS = 2
VERL_TOKENS = 256 * 600
STAGES = [
    ("generation", "gen", 40),
    ("old log-probs", "old_log_prob", None),
    ("reference", "ref", 4),
    ("values", "values", 6),
    ("critic update", "update_critic", 23),
    ("actor update", "update_actor", 18),
]
VERL_STEP = 92


def shown(value, digits=1):
    return "" if value is None else f"{value:.{digits}f}"


def table(gpu, bench):
    stages = bench.get("stages", {})
    rows = [(name, verl, stages.get(stage, {})) for name, stage, verl in STAGES]
    rows.append(("step", VERL_STEP, {"seconds": bench["step_s"]}))
    lines = [
        f"| stage | verl, {VERL_GPUS} A100, s | GPU s | {gpu}, s | of verl's GPU s | tokens/s | TFLOP/s |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, verl, ours in rows:
        total = verl and verl * VERL_GPUS
        seconds, gflops = ours.get("seconds"), ours.get("gflops")
        cells = [name, shown(verl, 0), shown(total, 0), shown(seconds)]
        cells.append(shown(seconds / total, 2) if seconds is not None and total else "")
        cells += [shown(ours.get("tokens_per_s"), 0), shown(gflops / 1e3 if gflops is not None else None)]
        lines.append(f"| {' | '.join(cells)} |")
    written = stages.get("gen", {}).get("tokens")
    lines.append("")
    lines.append(f"Medians. verl's step: {VERL_TOKENS} tokens in 256 responses; here {shown(written, 0)}.")
    rates = [("rollout_tok_s", "written"), ("score_tok_s", "scored"), ("update_tok_s", "learnt from")]
    found = [f"{bench[key]:.0f} {what}" for key, what in rates if bench.get(key) is not None]
    lines.append(f"Tokens per second: {', '.join(found)}.")
    if bench.get("gemm_gflops") is not None:
        lines.append(f"One matrix product: {bench['gemm_gflops'] / 1e3:.1f} TFLOP/s.")
    for key, whose in [("peak_gpu_mb", "GPU"), ("peak_rss_mb", "Host")]:
        if bench.get(key) is not None:
            lines.append(f"{whose} memory at most: {bench[key] / 1e3:.1f} GB.")
    return "\n".join(lines)


def main():
    gpu, path = sys.argv[1:]
    with open(path, encoding="utf-8") as file:
        print(table(gpu, json.load(file)))


main()
