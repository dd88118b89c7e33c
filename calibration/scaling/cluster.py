"""Hours on a given fabric: candidate models scaled from a template, each timed by the simulator, whose step time stands where 6 N D would.

A candidate keeps the template's vocabulary, head width, experts per token and aspect ratio: width, heads, feed-forward widths and layers grow by one factor.
Its plan is the default one of the simulator (every endpoint, data parallel, the largest expert parallelism that divides).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from calibration.scaling.allocation import BAND
from calibration.scaling.bootstrap import Ensemble
from calibration.scaling.hull import hull_at
from calibration.scaling.laws.base import Law
from calibration.scaling.points import COUNTS, Floats, Points, points_at
from calibration.scaling.verdict import LEVEL
from configuration.errors import ConfigurationError, unknown
from simulator.question import ask
from simulator.specs import ModelSpec, load_model
from simulator.specs.model import MoeFeedForward

FACTORS = tuple(2 ** (step / 4) for step in range(-8, 13))
"""Scale of width and depth: parameters of the blocks grow with its cube, from 1/64 to 512 times the template's."""

WIDTHS_OF = 8
"""Feed-forward widths are rounded to multiples of this, as kernels want them."""


@dataclass(frozen=True)
class Timed:
    """A candidate on the fabric. ``n`` as the law counts parameters; ``tokens_per_s`` of the whole job; ``fits`` None where the device states no memory."""

    factor: float
    layers: int
    width: int
    experts: float
    top_k: float
    n: float
    total_parameters: float
    step_s: float
    tokens_per_s: float
    flops_per_s: float
    fits: bool | None


@dataclass(frozen=True)
class Cluster:
    """A template ``model`` on a ``fabric`` (with a ``plan`` when given); ``count`` says what the law's N counts."""

    model: str
    fabric: str
    plan: str | None = None
    count: str = "active"

    def timed(self, factor: float, experts: int | None = None) -> Timed:
        """The template scaled by ``factor`` and, where it has experts, given ``experts`` of them; timed by the simulator. Raises ConfigurationError."""
        return _timed(self, factor, experts)

    def candidates(self, experts: int | None = None) -> tuple[Timed, ...]:
        """All FACTORS that the plan can run and the device holds."""
        found = []
        for factor in FACTORS:
            candidate = self.timed(factor, experts)
            if candidate.fits is not False:
                found.append(candidate)
        return tuple(found)

    def hours(self, n: float, d: float, experts: float) -> float:
        """Hours of training N parameters on D tokens, ln of the time per token interpolated between candidates in ln N (and carried on beyond them).

        ``experts`` 1 says nothing of experts: the template keeps its own.
        """
        import numpy as np

        moe = any(isinstance(group.feed_forward, MoeFeedForward) for group in load_model(self.model, None).blocks)
        near = [self.timed(factor, round(experts) if moe and experts > 1 else None) for factor in FACTORS]
        x, y = np.log([each.n for each in near]), -np.log([each.tokens_per_s for each in near])
        at = int(np.clip(np.searchsorted(x, math.log(n)), 1, len(x) - 1))
        slope = (y[at] - y[at - 1]) / (x[at] - x[at - 1])
        return float(d * np.exp(y[at - 1] + slope * (math.log(n) - x[at - 1])) / 3600)


@lru_cache(maxsize=512)
def _timed(cluster: Cluster, factor: float, experts: int | None) -> Timed:
    if cluster.count not in COUNTS:
        raise unknown("count", cluster.count, COUNTS)
    settings = scaled(load_model(cluster.model, None), factor, experts)
    question = ask(cluster.model, cluster.fabric, cluster.plan, settings={"model": settings})
    report = question.answer()
    model, tokens = question.model, question.plan.tokens_per_step
    routed = [group.feed_forward for group in model.blocks if isinstance(group.feed_forward, MoeFeedForward)]
    n = {"active": model.active_parameters, "total": model.parameters, "active-non-embedding": model.active_parameters - model.embedding_parameters}
    return Timed(
        factor=factor,
        layers=model.layers,
        width=model.width,
        experts=float(max((part.experts for part in routed), default=1)),
        top_k=float(max((part.top_k for part in routed), default=1)),
        n=float(n[cluster.count]),
        total_parameters=float(model.parameters),
        step_s=report.time.step_s,
        tokens_per_s=tokens / report.time.step_s,
        flops_per_s=6.0 * model.active_parameters * tokens / report.time.step_s,
        fits=report.fits,
    )


def scaled(model: ModelSpec, factor: float, experts: int | None) -> dict[str, Any]:
    """Settings that turn ``model`` into one ``factor`` times as wide and deep. Raises ConfigurationError when a dense model is asked for experts."""
    settings: dict[str, Any] = {}
    if experts is not None and not any(isinstance(group.feed_forward, MoeFeedForward) for group in model.blocks):
        raise ConfigurationError(f"--experts: model {model.name} has no experts to set")
    heads = model.blocks[0].mixer.heads
    settings["width"] = max(1, round(model.width / heads * max(1, round(heads * factor)) / WIDTHS_OF)) * WIDTHS_OF
    for index, group in enumerate(model.blocks):
        block = f"blocks.{index}"
        ratio = group.mixer.heads // group.mixer.kv_heads
        kv_heads = max(1, round(group.mixer.heads * factor / ratio))
        settings[f"{block}.count"] = max(1, round(group.count * factor))
        settings[f"{block}.mixer.kv_heads"] = kv_heads
        settings[f"{block}.mixer.heads"] = kv_heads * ratio
        name = "expert_width" if isinstance(group.feed_forward, MoeFeedForward) else "hidden_width"
        hidden = getattr(group.feed_forward, name)
        settings[f"{block}.feed_forward.{name}"] = max(1, round(hidden * factor / WIDTHS_OF)) * WIDTHS_OF
        if experts is not None and isinstance(group.feed_forward, MoeFeedForward):
            settings[f"{block}.feed_forward.experts"] = experts
    return settings


@dataclass(frozen=True)
class TimedChoice:
    """A candidate trained for the hours given: its tokens, predicted loss with interval at LEVEL (None without an ensemble), and the hull's warning.

    ``within_band``: its loss is within allocation.BAND of the best.
    """

    candidate: Timed
    d: float
    tokens_per_parameter: float
    loss: float
    loss_interval: tuple[float, float] | None
    within_band: bool
    beyond: str


def allocate_hours(
    law: Law, theta: Floats, hours: float, cluster: Cluster, experts: Sequence[int | None], *, ensemble: Ensemble | None = None, seen: Points | None = None
) -> tuple[TimedChoice, ...]:
    """Every candidate that fits, trained for ``hours``, lowest predicted loss first. Raises ConfigurationError when none fits or the law lacks N or D."""
    import numpy as np

    if not {"n", "d"} <= set(law.variables):
        raise ConfigurationError(f"law {law.name} does not know both N and D: it cannot divide hours between them")
    candidates = [candidate for count in experts for candidate in cluster.candidates(count)]
    if not candidates:
        raise ConfigurationError(f"no scaled {cluster.model} fits the device of fabric {cluster.fabric}")
    points = points_at(
        [each.n for each in candidates], [each.tokens_per_s * hours * 3600 for each in candidates], experts=[each.experts for each in candidates],
        top_k=[each.top_k for each in candidates], total=[each.total_parameters for each in candidates],
    )  # fmt: skip
    log_loss = law.log_loss(theta, points)
    intervals = None if ensemble is None else np.exp(ensemble.log_loss_interval(law.log_loss(ensemble.refits, points), log_loss, points, LEVEL)).T.tolist()
    choices = [
        TimedChoice(
            candidate=candidate,
            d=float(np.exp(points.log_d[index])),
            tokens_per_parameter=float(np.exp(points.log_d[index] - points.log_n[index])),
            loss=float(np.exp(log_loss[index])),
            loss_interval=None if intervals is None else tuple(intervals[index]),
            within_band=bool(log_loss[index] <= log_loss.min() + math.log1p(BAND)),
            beyond="" if seen is None else hull_at(seen, law.variables, points.take([index])).words,
        )
        for index, candidate in enumerate(candidates)
    ]
    return tuple(sorted(choices, key=lambda choice: choice.loss))
