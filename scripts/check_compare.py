"""Recomputes a comparison from its runs' evaluations.jsonl with numpy and scipy, and stops at the first difference.

    pip install numpy==2.4.6 scipy==1.17.1
    ppo-train compare RUN... --json > comparison.json
    python scripts/check_compare.py comparison.json RUN...

Means, areas, differences, exact tests, thresholds, matched lengths and layouts have to be equal to rounding; bands and
intervals, which are drawn with other random numbers, to a tenth of their width or two points of a percent.
"""

import json
import sys
from pathlib import Path

import numpy as np
from scipy import stats

RNG = np.random.default_rng(0)


def load(run, metric):
    """The evaluations behind a metric by step."""
    found = {}
    for line in (Path(run) / "evaluations.jsonl").read_text().splitlines():
        row = json.loads(line)
        suffix = "" if row["decoding"] == "greedy" else "_" + row["decoding"]
        if metric.startswith(f"val/{row['task']}{suffix}/"):
            found[row["step"]] = row
    return found


def equal(what, ours, theirs):
    assert np.allclose(ours, theirs, rtol=1e-9, atol=1e-12), f"{what}: {ours}, recomputed {theirs}"


def close(what, ours, statistic, seeds, problems):
    """An interval against a bootstrap over seeds and problems of our own."""
    draws = [statistic(RNG.integers(0, seeds, seeds), RNG.integers(0, problems, problems)) for _ in range(2000)]
    low, high = np.quantile(draws, [0.025, 0.975])
    room = max(0.02, 0.1 * (high - low))
    assert abs(ours[0] - low) < room and abs(ours[1] - high) < room, f"{what}: {ours}, recomputed {low}, {high}"


def matched(lengths, right):
    """Accuracies of two arms over deciles of both arms' lengths."""
    edges = np.unique(np.quantile(np.concatenate([x.ravel() for x in lengths]), np.arange(1, 10) / 10))
    bins = [np.searchsorted(edges, x) for x in lengths]
    counted = [b for b in range(len(edges) + 1) if all((x == b).sum() >= 5 for x in bins)]
    return [np.mean([r[x == b].mean() for b in counted]) for x, r in zip(bins, right)]


def main():
    comparison = json.loads(Path(sys.argv[1]).read_text())
    metric = comparison["metric"]
    figure = metric.rsplit("/", 1)[1]
    folders = {Path(run).name: run for run in sys.argv[2:]}
    runs = {run["run"]: (run["arm"], run["seed"], load(folders[run["run"]], metric)) for run in comparison["runs"]}
    arms = {arm["arm"]: [name for name, (own, _, _) in runs.items() if own == arm["arm"]] for arm in comparison["arms"]}
    checked = 0

    def values(names, step, figure=figure):
        hashes = {runs[name][2][step]["problems"] for name in names}
        assert len(hashes) == 1, f"step {step}: other problems"
        return np.array([runs[name][2][step][figure] for name in names], float)

    def pairs(first, second):
        """Runs of two arms with equal seeds, in the order of the first arm's."""
        own = {runs[name][1]: name for name in arms[second]}
        both = sorted((runs[name][1], name, own[runs[name][1]]) for name in arms[first] if runs[name][1] in own)
        return [name for _, name, _ in both], [name for _, _, name in both]

    for arm in comparison["arms"]:
        for point in arm["points"]:
            grid = values(arms[arm["arm"]], point["step"])
            equal(f"mean {arm['arm']} {point['step']}", point["mean"], grid.mean())
            if point["step"] in comparison["steps"]:
                close("band", point["band"], lambda s, p: grid[np.ix_(s, p)].mean(), *grid.shape)
            checked += 1
    for area in comparison["areas"]:
        steps = [p["step"] for p in comparison["arms"][0]["points"] if area["from"] <= p["step"] <= area["to"]]
        curve = [values(arms[area["arm"]], step).mean() for step in steps]
        equal(f"area {area['arm']}", area["area"], np.trapezoid(curve, steps) / (steps[-1] - steps[0]))
        checked += 1
    for entry in comparison["differences"]:
        if not entry["paired"] or entry["step"] is None:
            continue
        first, second = pairs(entry["first"], entry["second"])
        grid = values(second, entry["step"]) - values(first, entry["step"])
        equal("difference", entry["difference"], grid.mean())
        close("interval", entry["interval"], lambda s, p: grid[np.ix_(s, p)].mean(), *grid.shape)
        if entry["sign_flip"] is not None:
            test = stats.permutation_test(
                (grid.mean(1),), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
            )
            equal("sign flip", entry["sign_flip"], test.pvalue)
        checked += 1
    for entry in comparison["exact"]:
        first, second = (values([entry[run]], entry["step"])[0] for run in ("first_run", "second_run"))
        only = [int((first > second).sum()), int((second > first).sum())]
        equal("discordant pairs", [entry["only_first"], entry["only_second"]], only)
        equal("McNemar", entry["p"], stats.binomtest(only[0], sum(only)).pvalue if sum(only) else 1.0)
        checked += 1
    for entry in comparison["thresholds"]:
        names = [entry["run"]] if entry["run"] else arms[entry["arm"]]
        steps = sorted(set.intersection(*(set(runs[name][2]) for name in names)))
        reached = [step for step in steps if values(names, step).mean() >= entry["threshold"]]
        assert entry["step"] == (reached[0] if reached else None), f"threshold: {entry}"
        checked += 1
    for entry in comparison["matched"]:
        groups = pairs(entry["first"], entry["second"])
        lengths, right = ([values(g, entry["step"], f) for g in groups] for f in ("response_length", "accuracy"))
        equal("matched length", entry["matched"], matched(lengths, right))
        checked += 1
    for entry in comparison["layout"]:
        right, laid_out = (values(arms[entry["arm"]], entry["step"], f) for f in ("accuracy", "format"))
        cells = [right * laid_out, right * (1 - laid_out), (1 - right) * laid_out, (1 - right) * (1 - laid_out)]
        equal("layout", entry["fourfold"], [cell.mean() for cell in cells])
        checked += 1
    print(f"{checked} entries recomputed, all equal")


if __name__ == "__main__":
    main()
