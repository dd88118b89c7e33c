"""``python held_out.py TABLE [LAW [COUNT [PRIOR...]]]``: how well runs of a table foretell those of more compute.

Against the scatter of seeds and two baselines; each PRIOR is NAME=MEAN:SD, as for ``calibration scaling fit --prior``.

Two tests of the same law, or with LAW ``auto`` of choosing one by the runs that are not held out, anew below every cut. *By design*: the largest size of each
number of experts and the longest runs are held out together. *By compute*: rolling cuts, from which runs of 2.5 to 6 times ("4 times") and 6 to 16 times
("10 times") the compute are forecast. The aims are errors of 1 and 2 % of the loss, or twice the seeds' standard deviation where that is more, and 70 to 90 %
of 60 or more runs in their 80 % intervals.
"""

import collections
import sys
from pathlib import Path
from typing import Any

import numpy as np

from calibration.scaling.backtest import backtest, backtest_document
from calibration.scaling.baselines import nearest_run, no_floor
from calibration.scaling.choice import Auto, law_or_auto, taken
from calibration.scaling.fit import fit
from calibration.scaling.forms import Form
from calibration.scaling.gates import Gates, gated
from calibration.scaling.laws.base import FittedLaw
from calibration.scaling.objective import Objective, parse_priors
from calibration.scaling.points import points_of
from configuration.errors import ConfigurationError
from simulator.records.run_table import RunRow, read_rows

AIMS = {2.5: 0.01, 6.0: 0.02}
"""Mean error allowed, by the lower end of the extrapolation factor."""

SEEDS = 2.0
"""Errors up to so many standard deviations of seeds are allowed in any case."""


def seed_deviation(rows: list[RunRow]) -> float:
    """Pooled standard deviation of ln L over runs that differ in their seed alone."""
    groups = collections.defaultdict(list)
    for row in rows:
        groups[row.active_parameters, row.experts, row.tokens].append(np.log(row.validation_loss_nats_per_token))
    return float(np.sqrt(np.mean([np.var(group, ddof=1) for group in groups.values() if len(group) > 1])))


def by_design(rows: list[RunRow], law: FittedLaw | Auto, count: str, objective: Objective) -> str:
    """Errors on the largest size and the longest runs."""
    largest = {experts: max(row.active_parameters for row in rows if row.experts == experts) for experts in {row.experts for row in rows}}
    longest = max(row.tokens for row in rows)
    held = [row for row in rows if row.active_parameters == largest[row.experts] or row.tokens == longest]
    seen, asked = points_of([row for row in rows if row not in held], count), points_of(held, count)
    fitted, choice = taken(law, seen, objective)
    found = fit(seen, fitted, objective)
    error = np.expm1(fitted.log_loss(found.theta, asked) - asked.log_loss)
    baselines = (("no floor", no_floor(seen, asked)), ("nearest run", nearest_run(seen, asked)))
    others = "; ".join(f"{title}: {np.abs(np.expm1(predicted - asked.log_loss)).mean():.2%}" for title, predicted in baselines)
    because = "" if choice is None else "".join(f"  {line}\n" for line in (choice.words, *map(judged, choice.forms)))
    return (
        f"by design: {len(seen)} runs fitted, {len(asked)} held out\n{because}"
        f"{fitted.name}: mean error {np.abs(error).mean():.2%}, bias {error.mean():+.2%}, worst {np.abs(error).max():.2%}; {others}"
    )


def judged(form: Form) -> str:
    """One form that the choice was made from."""
    return form.failure or f"{form.law}, {form.parameters} coefficients: {form.held_out_error:.2%} ± {form.held_out_se:.2%}"


def by_compute(rolling: dict[str, Any], seeds: float) -> str:
    """Errors and coverage of rolling cuts, each with what is aimed at."""
    below = ", ".join(f"{cut['fitted_rows']} ({cut['law']})" for cut in rolling["cuts"])
    lines = [f"by compute: {len(rolling['cuts'])} cuts, {below} runs below them"]
    for part in rolling["by_factor"]:
        error, aim = part["mean_absolute_relative_error"], AIMS.get(part["factor_above"])
        allowed = "" if aim is None else f" (aim {max(aim, SEEDS * seeds):.2%}: {'met' if error <= max(aim, SEEDS * seeds) else 'missed'})"
        lines.append(
            f"{part['factor_above']:g} to {part['factor_up_to'] or np.inf:g} times: {part['runs']} runs, mean error {error:.2%}{allowed}, "
            f"bias {part['bias']:+.2%}; no floor: {part['no_floor_error']:.2%}; nearest run: {part['nearest_run_error']:.2%}"
        )
    lines.append(f"80 % intervals cover {rolling['coverage']:.1%} of {rolling['runs']} runs (aim 70 to 90 % of 60 or more)")
    return "\n".join(lines)


def main() -> None:
    """Print both tests."""
    table, law_name, count, *priors = (*sys.argv[1:], *("joint-moe-fixed", "active")[len(sys.argv) - 2 :])
    rows, excluded = gated(read_rows(Path(table)), Gates())
    law, seeds, objective = law_or_auto(law_name), seed_deviation(rows), Objective(priors=parse_priors(priors))
    print(f"{len(rows)} runs, {len(excluded)} kept out by gates; seeds: standard deviation of ln L {seeds:.2%}; {objective.title}")
    print(by_design(rows, law, count, objective))
    print(by_compute(backtest_document(backtest(points_of(rows, count), law, objective))["rolling"], seeds))


if __name__ == "__main__":
    try:
        main()
    except ConfigurationError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
