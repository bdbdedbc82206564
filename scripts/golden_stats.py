"""Computes the statistics of `ppo-train compare` with numpy and scipy, for the unit tests of src/stats.

    pip install numpy==2.4.6 scipy==1.17.1
    python scripts/golden_stats.py [OUT]          # OUT: tests/golden

stats.json holds cases with their inputs and results: McNemar's exact test as a binomial test, the sign-flip test as a
permutation test of one sample, quantiles, areas by the trapezoidal rule, accuracies at matched response length
from a plain loop, and areas under ROC curves as Mann-Whitney statistics.
"""

import json
import sys
from pathlib import Path

import numpy as np
from scipy import stats

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden"


def mcnemar(first, second):
    p = stats.binomtest(first, first + second, 0.5).pvalue
    return {"first": first, "second": second, "p": p}


def sign_flip(differences):
    test = stats.permutation_test(
        (np.array(differences),), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    )
    return {"differences": differences, "p": test.pvalue}


def quantile(values, at):
    return {"values": values, "at": at, "value": np.quantile(values, at)}


def area(steps, values):
    return {"steps": steps, "values": values, "height": np.trapezoid(values, steps) / (steps[-1] - steps[0])}


def matched(rng, problems, bins=10, least=5):
    """Accuracy of two arms within bins of response length, edges at the quantiles of both arms' lengths together."""
    lengths = [rng.integers(20, 120, problems), rng.integers(60, 200, problems)]
    right = [(rng.random(problems) < 0.7 - 0.002 * length).astype(float) for length in lengths]
    edges = np.unique(np.quantile(np.concatenate(lengths), np.arange(1, bins) / bins))
    accuracies, covered = [], 0
    for index in range(len(edges) + 1):
        inside = [np.searchsorted(edges, length, side="left") == index for length in lengths]
        if all(choice.sum() >= least for choice in inside):
            accuracies.append([float(r[choice].mean()) for r, choice in zip(right, inside)])
            covered += sum(int(choice.sum()) for choice in inside)
    first, second = np.mean(accuracies, axis=0)
    return {
        "lengths": [length.tolist() for length in lengths],
        "right": [r.tolist() for r in right],
        "first": first,
        "second": second,
        "covered": covered / (2 * problems),
        "bins": len(accuracies),
    }


def auc(first, second):
    statistic = stats.mannwhitneyu(first, second).statistic
    return {"first": first, "second": second, "auc": statistic / len(first) / len(second)}


def main():
    rng = np.random.default_rng(0)
    golden = {
        "mcnemar": [mcnemar(a, b) for a, b in [(3, 9), (9, 3), (0, 6), (10, 10), (41, 77), (500, 540), (700, 1)]],
        "sign_flip": [
            sign_flip(d)
            for d in [[0.03, 0.05, 0.01], [0.03, -0.05, 0.01], [0.1, 0.1, -0.1, 0.1], rng.normal(0.02, 0.03, 9).tolist()]
        ],
        "quantile": [
            quantile(values, at)
            for values in [rng.normal(size=7).tolist(), rng.normal(size=40).tolist()]
            for at in [0.0, 0.025, 0.5, 0.8, 0.975, 1.0]
        ],
        "area": [
            area([0, 10], [0.1, 0.3]),
            area([0, 10, 20, 50], [0.1, 0.3, 0.35, 0.5]),
            area([40, 70, 150, 250], [0.28, 0.4, 0.5, 0.57]),
            area(list(range(10, 260, 10)), rng.random(25).tolist()),
        ],
        "matched": [matched(rng, problems) for problems in (60, 150)],
        "auc": [
            auc([1, 2, 3], [0, 2]),
            auc([0, 0, 0], [0, 0]),
            auc(rng.poisson(2, 40).tolist(), rng.poisson(1, 30).tolist()),
            auc(rng.normal(size=25).tolist(), rng.normal(1, size=60).tolist()),
        ],
    }
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else GOLDEN
    (out / "stats.json").write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
