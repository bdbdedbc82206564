"""Computes the figures of answers in classes with scikit-learn, for the unit test of src/analysis/classification.rs.

    pip install scikit-learn==1.9.1 numpy==2.4.6
    python scripts/golden_classification.py [OUT]          # OUT: tests/golden

classification.json holds truths and answers (null: a response that names no class) with confusion matrices, precision,
recall, F1 and macro-F1 (zero_division=0, over the three classes, whichever occur), the scores of constant answers, and
percentile intervals of a bootstrap over problems.
"""

import json
import sys
from pathlib import Path

import numpy as np
from sklearn import metrics

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden"
CLASSES = [0, 1, 2]
NONE = 3


def macro_f1(truth, given):
    return metrics.f1_score(truth, given, labels=CLASSES, average="macro", zero_division=0)


def case(truth, given):
    truth, given = np.array(truth), np.array(given)
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(truth, given, labels=CLASSES, zero_division=0)
    constants = [np.full_like(truth, constant) for constant in CLASSES]
    return {
        **plain(truth, given),
        "confusion": metrics.confusion_matrix(truth, given, labels=[*CLASSES, NONE])[:3].tolist(),
        "precision": precision.tolist(),
        "recall": recall.tolist(),
        "f1": f1.tolist(),
        "accuracy_and_macro_f1": [metrics.accuracy_score(truth, given), macro_f1(truth, given)],
        "constants": [f(truth, constant) for constant in constants for f in (metrics.accuracy_score, macro_f1)],
    }


def plain(truth, given):
    given = [None if answer == NONE else int(answer) for answer in given]
    return {"truth": np.asarray(truth).tolist(), "given": given, "majority": 2}


def drawn(rng, problems, right, unanswered):
    """Classes as uneven as PolitiFact's, and answers of which a share is right and a share is none."""
    truth = rng.choice(CLASSES, problems, p=[0.25, 0.17, 0.58])
    guesses = rng.choice(CLASSES, problems)
    given = np.where(rng.random(problems) < right, truth, guesses)
    return truth, np.where(rng.random(problems) < unanswered, NONE, given)


def bootstrap(rng, problems=300, resamples=20_000):
    truth, first = drawn(rng, problems, 0.4, 0.1)
    second = np.where(rng.random(problems) < 0.7, first, rng.choice(CLASSES, problems))
    values = []
    for _ in range(resamples):
        draw = rng.integers(0, problems, problems)
        scores = [macro(truth[draw], given[draw]) for given in (first, second)]
        values.append([np.mean(truth[draw] == first[draw]), scores[0], scores[0] - scores[1]])
    low, high = np.quantile(np.array(values), [0.025, 0.975], axis=0)
    return {
        "first": plain(truth, first),
        "second": plain(truth, second),
        "accuracy": [low[0], high[0]],
        "macro_f1": [low[1], high[1]],
        "difference": [macro_f1(truth, first) - macro_f1(truth, second)],
        "difference_interval": [low[2], high[2]],
    }


def macro(truth, given):
    """macro_f1 without scikit-learn's checks, which take a hundred times as long."""
    f1 = []
    for label in CLASSES:
        whole = np.sum(truth == label) + np.sum(given == label)
        f1.append(2 * np.sum((truth == label) & (given == label)) / whole if whole else 0.0)
    return float(np.mean(f1))


def main():
    rng = np.random.default_rng(7)
    cases = [
        case([0, 1, 2, 2], [0, 1, 2, 2]),
        case([0, 1, 2, 2], [NONE] * 4),
        case([0, 0, 2, 2], [0, 2, 1, NONE]),  # no problem of class 1
        case([0, 1, 2, 1], [2, 2, 2, 2]),
        case(*drawn(rng, 40, 0.2, 0.5)),
        case(*drawn(rng, 60, 0.6, 0.05)),
    ]
    truth, given = drawn(rng, 50, 0.3, 0.2)
    assert abs(macro(truth, given) - macro_f1(truth, given)) < 1e-12
    golden = {"cases": cases, "bootstrap": bootstrap(rng)}
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else GOLDEN
    (out / "classification.json").write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
