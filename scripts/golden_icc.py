"""Computes intraclass correlations with pingouin, for the unit tests of src/judge/agreement.rs.

    pip install pingouin==0.7.0
    python scripts/golden_icc.py [OUT]            # OUT: tests/golden

icc.json holds the counts of two judges and ICC(3,1), which pingouin calls ICC(C,1): consistency of single raters under
a two-way mixed model, with its 95 % interval; null where there is none.
"""

import json
import math
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pingouin

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden"


def number(value):
    return float(value) if math.isfinite(value) else None


def icc(first, second):
    n = len(first)
    table = pd.DataFrame({"trace": list(range(n)) * 2, "judge": [0] * n + [1] * n, "count": [*first, *second]})
    result = pingouin.intraclass_corr(table, targets="trace", raters="judge", ratings="count").set_index("Type")
    row = result.loc["ICC(C,1)"]
    low, high = row["CI95"]
    return {
        "first": [float(x) for x in first],
        "second": [float(x) for x in second],
        "icc": number(row["ICC"]),
        "low": number(low),
        "high": number(high),
    }


def noisy(rng, n, rate, agreement):
    """Counts of two judges who see the same, each time with the probability `agreement`."""
    seen, other = rng.poisson(rate, n), rng.poisson(rate, n)
    return seen.tolist(), np.where(rng.random(n) < agreement, seen, other).tolist()


def main():
    warnings.simplefilter("ignore")
    pingouin.options["round"] = None
    pingouin.options["round.column.CI95"] = None
    rng = np.random.default_rng(0)
    cases = [
        ([9, 6, 8, 7, 10, 6], [2, 1, 4, 1, 5, 2]),
        ([0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6]),
        ([0, 1, 2, 3, 4, 9], [5, 4, 3, 2, 1, 0]),
        ([0, 0, 1, 0, 2, 0, 0, 3], [0, 0, 0, 0, 0, 0, 0, 0]),
        ([1, 1, 1, 1, 1], [1, 1, 1, 1, 1]),
        (rng.normal(size=5).tolist(), rng.normal(size=5).tolist()),
        *(noisy(rng, n, rate, agreement) for n in (6, 40, 300) for rate, agreement in ((0.2, 0.5), (2.0, 0.9), (5.0, 0.0))),
    ]
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else GOLDEN
    (out / "icc.json").write_text(json.dumps([icc(*case) for case in cases]) + "\n")


if __name__ == "__main__":
    main()
