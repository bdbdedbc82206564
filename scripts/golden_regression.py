"""Computes regressions with statsmodels, linearmodels and semopy, for the unit tests of src/regression.

    pip install numpy==2.4.6 scipy==1.17.1 pandas==3.1.1 statsmodels==0.15.0 linearmodels==7.1 semopy==2.3.11
    python scripts/golden_regression.py [OUT]          # OUT: tests/golden

regression.jsonl is a generated table of traces, with holes; evaluations.jsonl is a real one, the sampled evaluations of
200 problems before and after 8 steps of the quickstart. regression.json holds what the libraries say about them:

- `models`: coefficients with errors, statistics, p values and intervals. Fixed effects are dummies of statsmodels' OLS
  and GLM (`count`: "all"), or absorbed by linearmodels' PanelOLS and AbsorbingLS, which do not count effects nested in
  clusters (`count`: "nested", errors alone: their degrees of freedom are others).
- `mediations`: coefficients and effects with errors by the delta method, from statsmodels' OLS. For classical errors
  semopy's maximum likelihood agrees, once its variances, over n, are put over n - k; the script checks that.
- `corrections`: statsmodels' multipletests.
"""

import json
import re
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import semopy
import statsmodels.api as sm
import statsmodels.formula.api as smf
from linearmodels.iv import AbsorbingLS
from linearmodels.panel import PanelOLS
from scipy import stats
from statsmodels.stats.multitest import multipletests

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden"


def generated():
    """Traces of 30 problems in 10 tasks by three arms and five seeds, with holes; problems have difficulties."""
    rng = np.random.default_rng(26)
    rows = []
    difficulty = rng.normal(0, 1, 30)
    talk, skill = rng.normal(0, 0.3, 5), rng.normal(0, 0.8, 5)
    for problem in range(30):
        for arm in ["baseline", "conversation", "monologue"]:
            for seed in rng.choice(5, size=2, replace=False):
                questions = int(rng.poisson(1 + 1.5 * (arm == "conversation") + max(0.3 * difficulty[problem] + talk[seed], -0.9)))
                verification = int(rng.poisson(0.5 + 0.4 * questions))
                tokens = int(np.exp(rng.normal(4.5 + 0.05 * questions + 0.1 * difficulty[problem], 0.4))) + 5
                chance = 1 / (1 + np.exp(-(0.25 * questions + 0.2 * verification - difficulty[problem] + skill[seed])))
                rows.append(
                    {
                        "problem": f"p{problem}",
                        "task": f"t{problem % 10}",
                        "arm": arm,
                        "seed": int(seed),
                        "behaviours": {"questions": questions, "verification": verification},
                        "tokens": None if rng.random() < 0.04 else tokens,
                        "share": None if rng.random() < 0.03 else round(float(np.clip(rng.normal(chance, 0.15), 0, 1)), 3),
                        "ended": bool(rng.random() < 0.8),
                        "correct": int(rng.random() < chance),
                    }
                )
    return rows


def frame(rows):
    table = pd.DataFrame(rows)
    for name in ["questions", "verification"]:
        table[name] = [row["behaviours"][name] for row in rows]
    table["ended"] = table["ended"].astype(int)
    return table


def laid_out(path):
    """A run's evaluations, a row for each problem."""
    parts = []
    for line in path.read_text().splitlines():
        row = json.loads(line)
        lists = {name: values for name, values in row.items() if isinstance(values, list)}
        parts.append(pd.DataFrame({"step": row["step"], **lists, "index": range(len(row["accuracy"]))}))
    return pd.concat(parts, ignore_index=True)


def our_name(name):
    """A parameter's name in our formulas."""
    parts = []
    for part in name.split(":"):
        if part == "Intercept":
            part = "constant"
        elif "[" in part:
            column, level = part.split("[")
            column = column.removeprefix("C(").split(",")[0].rstrip(")")
            part = f"{column}[{level.rstrip(']').removeprefix('T.')}]"
        part = part.replace("np.", "")
        for behaviour in ["questions", "verification"]:
            part = part.replace(behaviour, f"behaviours.{behaviour}")
        parts.append(part)
    return ":".join(parts)


def patsy(formula):
    """Our formula in patsy's words, fixed effects as dummies."""
    model, _, effects = formula.partition("|")
    model = model.replace("behaviours.", "").replace("base=", "Treatment(").replace('")', '"))')
    model = re.sub(r"\b(log1p|log|sqrt)\(", r"np.\1(", model)
    dummies = [" + C(" + effect.strip().replace(":", " + '/' + ") + ")" for effect in effects.split("+") if effect.strip()]
    return model + "".join(dummies)


def effect_columns(formula):
    return [effect.strip() for effect in formula.partition("|")[2].split("+") if effect.strip()]


def complete(table, columns):
    return table.dropna(subset=[c for c in columns if c in table]).reset_index(drop=True)


def codes(values):
    return pd.factorize(values)[0]


def settings(errors, clusters, table):
    if clusters:
        groups = np.column_stack([codes(table[cluster]) for cluster in clusters])
        return {"cov_type": "cluster", "cov_kwds": {"groups": groups[:, 0] if len(clusters) == 1 else groups}}
    return {"cov_type": {"classical": "nonrobust", "hc1": "HC1"}[errors]}


def parameters(result, own, factor=1.0):
    """Our terms as [estimate, error, statistic, p, low, high]; `factor`: what errors are multiplied by."""
    low_high = result.conf_int()
    terms = {}
    for name in result.params.index:
        if own(name):
            low, high = low_high.loc[name]
            values = [result.params[name], result.bse[name], result.tvalues[name], result.pvalues[name], low, high]
            if factor != 1:
                estimate, error = values[0], values[1] * factor
                far = stats.norm.ppf(0.975) * error
                p = 2 * stats.norm.sf(abs(estimate / error))
                values = [estimate, error, estimate / error, p, estimate - far, estimate + far]
            terms[our_name(name)] = [float(value) for value in values]
    return terms


def model(table, formula, family="linear", errors="hc1", clusters=()):
    """A model with dummies."""
    words = patsy(formula)
    names = {name for name in table if f"{name}" in words}
    rows = complete(table, list(names | set(clusters)))
    effects = effect_columns(formula)
    if family == "poisson":
        # Levels in which all counts are 0 are left out, as their coefficients are infinite.
        outcome = words.split("~")[0].strip()
        for effect in effects:
            rows = rows[rows.groupby(effect)[outcome].transform("sum") > 0].reset_index(drop=True)
    dummies = [f"C({effect})" for effect in effects]
    own = lambda name: not any(name.startswith(dummy) for dummy in dummies) and (name != "Intercept" or not effects)
    more, factor = {}, 1.0
    if "offset(" in words:
        before, _, offset = words.partition(" + offset(np.log(")
        words, more = before, {"offset": np.log(rows[offset.rstrip(")")])}
    if family == "linear":
        result = smf.ols(words, rows).fit(use_t=True, **settings(errors, clusters, rows))
        quality = {"r2": result.rsquared}
        if len(effects) == 1:
            outcome = words.split("~")[0].strip()
            within = rows[outcome] - rows.groupby(effects[0])[outcome].transform("mean")
            quality["within_r2"] = 1 - result.ssr / (within**2).sum()
    else:
        poisson = smf.glm(words, rows, family=sm.families.Poisson(), **more)
        result = poisson.fit(tol=1e-14, maxiter=200, tol_criterion="deviance", **settings(errors, clusters, rows))
        if errors == "hc1" and not clusters:
            # statsmodels calls the sandwich without n / (n - k) HC1 where models are not linear.
            factor = np.sqrt(len(rows) / result.df_resid)
        quality = {
            "log_likelihood": result.llf,
            "deviance": result.deviance,
            "pseudo_r2": 1 - result.llf / result.llnull,
        }
    return {
        "model": formula,
        "family": family,
        "errors": errors,
        "clusters": list(clusters),
        "count": "all",
        "rows": len(rows),
        "terms": parameters(result, own, factor),
        "quality": {name: float(value) for name, value in quality.items()},
    }


def absorbed(table, formula, clusters):
    """A linear model whose effects linearmodels absorbs; effects nested in the clusters do not count."""
    outcome, rest = [part.strip() for part in formula.partition("|")[0].replace("behaviours.", "").split("~")]
    effects = effect_columns(formula)
    terms = [term.strip() for term in rest.split("+")]
    values = {term: eval(term.replace("log(", "np.log("), {"np": np}, dict(table)) for term in terms}
    data = pd.DataFrame({"y": table[outcome], **values, **{c: codes(table[c]) for c in {*effects, *clusters}}}).dropna()
    data = data.reset_index(drop=True)
    if len(effects) == 1:
        # PanelOLS wants a second index, which here is the place within the problem.
        data["place"] = data.groupby(effects[0]).cumcount()
        indexed = data.set_index([effects[0], "place"], drop=False)
        # The constant is one of the parameters.
        exog = sm.add_constant(indexed[terms])
        fitted = PanelOLS(indexed["y"], exog, entity_effects=True).fit(
            cov_type="clustered", clusters=indexed[list(clusters)], group_debias=True, debiased=True
        )
    else:
        categories = pd.DataFrame({effect: pd.Categorical(data[effect]) for effect in effects})
        fitted = AbsorbingLS(data["y"], data[terms], absorb=categories).fit(cov_type="unadjusted", debiased=True)
    return {
        "model": formula,
        "family": "linear",
        "errors": "classical" if len(effects) > 1 else "hc1",
        "clusters": list(clusters),
        "count": "nested",
        "rows": len(data),
        "terms": {our_name(term): [float(fitted.params[term]), float(fitted.std_errors[term])] for term in terms},
        "quality": {},
    }


def bread(result):
    return np.asarray(result.normalized_cov_params)


def influence(result):
    """What each row adds to the coefficients."""
    return (result.model.exog * np.asarray(result.resid)[:, None]) @ bread(result)


def joint(equations, errors, clusters, table):
    """The covariance of the coefficients of several equations: SUR's, or the sandwich of the stacked equations."""
    n = len(table)
    ends = np.cumsum([0] + [len(e.params) for e in equations])
    covariance = np.zeros((ends[-1], ends[-1]))
    if errors == "classical" and not clusters:
        for i, one in enumerate(equations):
            for j, other in enumerate(equations):
                shared = one.resid @ other.resid / np.sqrt(one.df_resid * other.df_resid)
                x, z = one.model.exog, other.model.exog
                block = shared * bread(one) @ (x.T @ z) @ bread(other)
                covariance[ends[i] : ends[i + 1], ends[j] : ends[j + 1]] = block
        return covariance, ends
    stacked = np.hstack([influence(e) / np.sqrt(e.df_resid) for e in equations])
    if not clusters:
        return n * stacked.T @ stacked, ends

    def clustered(groups):
        sums = np.array([stacked[groups == g].sum(axis=0) for g in np.unique(groups)])
        count = len(sums)
        return count / (count - 1) * (n - 1) * sums.T @ sums

    groups = [codes(table[cluster]) for cluster in clusters]
    total = clustered(groups[0])
    if len(groups) == 2:
        total = total + clustered(groups[1]) - clustered(groups[0] * 1000 + groups[1])
    return total, ends


def mediation(table, cause, mediators, outcome, controls="", effects=(), errors="hc1", clusters=()):
    """Both orders, each effect as [estimate, error]."""
    words = patsy(f"{outcome} ~ {controls}") if controls else outcome
    own = [c.replace("behaviours.", "") for c in [cause, *mediators, outcome]]
    names = {name for name in table if name in words} | set(own) | set(effects) | set(clusters)
    rows = complete(table, list(names & set(table)))
    more = "".join(f" + {c}" for c in [*([patsy(controls)] if controls else []), *(f"C({e})" for e in effects)])
    x, ms, y = own[0], own[1:-1], own[-1]
    orders = []
    for causes, between in [([x], ms), (ms, [x])]:
        left = " + ".join(causes)
        equations = [smf.ols(f"{m} ~ {left}{more}", rows).fit() for m in between]
        last = smf.ols(f"{y} ~ {left} + {' + '.join(between)}{more}", rows).fit()
        covariance, ends = joint([*equations, last], errors, clusters, rows)
        place = lambda equation, name: ends[equation] + list([*equations, last][equation].params.index).index(name)
        values = np.concatenate([e.params for e in [*equations, last]])
        found = {}

        def add(name, estimate, gradient):
            error = np.sqrt(gradient @ covariance @ gradient)
            found[name] = [float(estimate), float(error)]

        for j, m in enumerate(between):
            for c in causes:
                gradient = np.zeros(ends[-1])
                gradient[place(j, c)] = 1
                add(f"a {our_name(c)} {our_name(m)}", values[place(j, c)], gradient)
        for m in between:
            gradient = np.zeros(ends[-1])
            gradient[place(len(between), m)] = 1
            add(f"b {our_name(m)}", values[place(len(between), m)], gradient)
        for c in causes:
            direct = np.zeros(ends[-1])
            direct[place(len(between), c)] = 1
            add(f"direct {our_name(c)}", direct @ values, direct)
            total, indirect = direct.copy(), np.zeros(ends[-1])
            for j, m in enumerate(between):
                a, b = place(j, c), place(len(between), m)
                gradient = np.zeros(ends[-1])
                gradient[a], gradient[b] = values[b], values[a]
                add(f"indirect {our_name(c)} {our_name(m)}", values[a] * values[b], gradient)
                indirect += gradient
            through = sum(found[f"indirect {our_name(c)} {our_name(m)}"][0] for m in between)
            if len(between) > 1:
                add(f"indirect {our_name(c)}", through, indirect)
            add(f"total {our_name(c)}", direct @ values + through, total + indirect)
        orders.append(found)
        if errors == "classical" and not (clusters or controls or effects):
            check_with_semopy(rows, causes, between, y, found, [*equations, last])
    return {
        "cause": cause,
        "mediators": list(mediators),
        "outcome": outcome,
        "controls": controls,
        "effects": list(effects),
        "errors": errors,
        "clusters": list(clusters),
        "rows": len(rows),
        "orders": orders,
    }


def check_with_semopy(rows, causes, mediators, y, found, equations):
    """semopy's estimates are those of least squares; its variances are over n where ours are over n - k."""
    lines = [f"{m} ~ {' + '.join(causes)}" for m in mediators] + [f"{y} ~ {' + '.join(causes + mediators)}"]
    if len(mediators) > 1:
        lines += [f"{one} ~~ {other}" for i, one in enumerate(mediators) for other in mediators[i + 1 :]]
    fitted = semopy.Model("\n".join(lines))
    data = rows[[*causes, *mediators, y]].astype(float)
    # Of one scale, so that its optimizer comes close to the maximum.
    scale = data.std()
    for _ in range(3):
        fitted.fit((data - data.mean()) / scale, obj="MLW", solver="SLSQP", options={"ftol": 1e-16})
    table = fitted.inspect()
    paths = table[table["op"] == "~"].set_index(["lval", "rval"])
    n = len(rows)

    def one(left, right, ours, equation):
        theirs = paths.loc[(left, right)][["Estimate", "Std. Err"]].astype(float) * scale[left] / scale[right]
        error = theirs["Std. Err"] * np.sqrt(n / equation.df_resid)
        assert abs(theirs["Estimate"] - ours[0]) < 1e-6 * max(1, abs(ours[0])), (left, right, theirs, ours)
        assert abs(error - ours[1]) < 1e-6 * max(1, ours[1]), (left, right, error, ours)

    for m, equation in zip(mediators, equations):
        for c in causes:
            one(m, c, found[f"a {our_name(c)} {our_name(m)}"], equation)
    for m in mediators:
        one(y, m, found[f"b {our_name(m)}"], equations[-1])
    for c in causes:
        one(y, c, found[f"direct {our_name(c)}"], equations[-1])


def correction(p):
    return {
        "p": list(p),
        "holm": multipletests(p, method="holm")[1].tolist(),
        "bh": multipletests(p, method="fdr_bh")[1].tolist(),
    }


def main():
    warnings.simplefilter("ignore")
    rows = generated()
    table = frame(rows)
    basic = "correct ~ behaviours.questions + log(tokens)"
    problems = f"{basic} | problem"
    arms = 'share ~ C(arm, base="monologue") + behaviours.questions + ended'
    counts = "behaviours.questions ~ arm + log(tokens)"
    models = [
        model(table, basic, errors="classical"),
        model(table, basic),
        model(table, basic, clusters=["task"]),
        model(table, basic, clusters=["task", "seed"]),
        model(table, arms, clusters=["problem"]),
        model(table, "share ~ 0 + arm + log1p(tokens)", errors="hc1"),
        model(table, "share ~ arm * ended + arm:behaviours.questions", errors="hc1"),
        model(table, "sqrt(tokens) ~ 0 + behaviours.questions", errors="classical"),
        model(table, problems, errors="classical"),
        model(table, problems),
        model(table, problems, clusters=["task"]),
        model(table, problems, clusters=["task", "seed"]),
        model(table, f"{basic} + arm | problem + seed", errors="classical"),
        model(table, f"{basic} + arm | problem + seed", clusters=["task"]),
        model(table, counts, family="poisson", errors="classical"),
        model(table, counts, family="poisson"),
        model(table, counts, family="poisson", clusters=["task"]),
        model(table, counts, family="poisson", clusters=["task", "seed"]),
        model(table, "behaviours.verification ~ arm + offset(log(tokens))", family="poisson", clusters=["task"]),
        model(table, f"{counts} | problem", family="poisson", clusters=["task"]),
        model(table, f"{counts} | problem + seed", family="poisson", errors="hc1"),
        absorbed(table, problems, ["task"]),
        absorbed(table, problems, ["task", "seed"]),
        absorbed(table, f"{basic} | problem + seed", []),
    ]
    questions, verification = "behaviours.questions", "behaviours.verification"
    mediations = [
        mediation(table, "ended", [questions], "share", errors="classical"),
        mediation(table, questions, [verification], "correct", errors="classical"),
        mediation(table, questions, [verification, "tokens"], "correct", errors="classical"),
        mediation(table, questions, [verification], "correct"),
        mediation(table, questions, [verification, "ended"], "correct", "log(tokens)", clusters=["task"]),
        mediation(table, questions, [verification], "correct", "log(tokens)", ["problem"], clusters=["task"]),
        mediation(table, questions, [verification, "ended"], "share", "log(tokens)", ["problem"], errors="classical"),
        mediation(table, questions, [verification], "share", "", ["problem", "seed"], clusters=["task"]),
        mediation(table, questions, [verification], "correct", clusters=["task", "seed"]),
    ]
    real = laid_out(GOLDEN / "evaluations.jsonl")
    lengths = "accuracy ~ C(step) + log(response_length) | index"
    of_run = [
        model(real, lengths, clusters=["index"]),
        model(real, lengths),
        model(real, "response_length ~ C(step) | index", family="poisson", clusters=["index"]),
        model(real, "format ~ C(step) + response_length", errors="classical"),
    ]
    models += [{**case, "table": "evaluations.jsonl"} for case in of_run]
    case = mediation(real, "step", ["response_length"], "accuracy", "", ["index"], clusters=["index"])
    mediations.append({**case, "table": "evaluations.jsonl"})
    rng = np.random.default_rng(1)
    corrections = [
        correction([0.01, 0.04, 0.03, 0.005]),
        correction([0.5]),
        correction([0.02, 0.02, 0.02, 0.9, 1.0]),
        correction((rng.random(25) ** 3).tolist()),
    ]
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else GOLDEN
    (out / "regression.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = [case["terms"] for case in models] + [order for case in mediations for order in case["orders"]]
    assert all(np.isfinite(number) for case in found for numbers in case.values() for number in numbers)
    golden = {"models": models, "mediations": mediations, "corrections": corrections}
    (out / "regression.json").write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
