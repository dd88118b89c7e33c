"""ExpertLoad: how tokens spread over the experts of a layer; drives expert compute, all-to-all and memory at once."""

from math import ceil
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from configuration.errors import ConfigurationError
from configuration.spec import Spec
from simulator.specs.model import ModelSpec
from simulator.specs.plan import Plan

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ROUNDING = 1e-9
SEED = 0


class ExpertLoad(Spec):
    """Share of the choices (tokens times top-k) that falls on each expert, the same in every MoE layer and for the tokens of every rank.

    ``uniform``: all alike. ``zipf``: the n-th most popular expert's share goes as n^-exponent (1 when left out), places shuffled with ``seed`` (0).
    ``histogram``: ``counts`` of each expert in order, or shares, as measured. ``worst``: every token chooses the first top-k experts.
    A token chooses different experts, so that no share exceeds 1 / top-k: what Zipf's law gives beyond goes to the others in proportion.
    """

    kind: Literal["uniform", "zipf", "histogram", "worst"] = "uniform"
    exponent: Annotated[float, Field(ge=0)] | None = None
    seed: Annotated[int, Field(ge=0)] | None = None
    counts: list[Annotated[float, Field(ge=0)]] | None = None

    @model_validator(mode="after")
    def _check(self) -> "ExpertLoad":
        for field, kind in (("exponent", "zipf"), ("seed", "zipf"), ("counts", "histogram")):
            if getattr(self, field) is not None and self.kind != kind:
                raise ValueError(f"{field}: is for kind {kind}, not {self.kind}")
        if self.kind == "histogram" and not sum(self.counts or []):
            raise ValueError("counts: a histogram needs one number an expert, not all of them 0")
        return self

    @property
    def text(self) -> str:
        """In a few words."""
        if self.kind == "zipf":
            return f"zipf with exponent {1.0 if self.exponent is None else self.exponent:g}, seed {self.seed or SEED}"
        return self.kind

    def shares(self, experts: int, top_k: int) -> "NDArray[np.float64]":
        """Share of each expert of a layer; they add up to 1. Raises ConfigurationError for a histogram of other experts."""
        import numpy as np

        if self.kind == "uniform":
            return np.full(experts, 1 / experts)
        if self.kind == "worst":
            return np.where(np.arange(experts) < top_k, 1 / top_k, 0.0)
        if self.kind == "histogram":
            return self._measured(experts, top_k)
        exponent = 1.0 if self.exponent is None else self.exponent
        popularity = np.arange(1, experts + 1, dtype=np.float64) ** -exponent
        return np.random.default_rng(self.seed or SEED).permutation(_capped(popularity / popularity.sum(), 1 / top_k))

    def _measured(self, experts: int, top_k: int) -> "NDArray[np.float64]":
        import numpy as np

        counts = np.array(self.counts, dtype=np.float64)
        if len(counts) != experts:
            raise ConfigurationError(f"load.counts: {len(counts)} numbers for the {experts} experts of a layer")
        shares: NDArray[np.float64] = counts / counts.sum()
        if shares.max() > (1 + ROUNDING) / top_k:
            raise ConfigurationError(f"load.counts: expert {shares.argmax()} has {shares.max():.1%} of the choices; with top-{top_k} at most {1 / top_k:.1%}")
        return shares

    def rank_shares(self, experts: int, top_k: int, ep: int) -> "NDArray[np.float64]":
        """Share of the choices that falls on each of the ``ep`` ranks, which hold neighbouring experts."""
        sums: NDArray[np.float64] = self.shares(experts, top_k).reshape(ep, -1).sum(axis=1)
        return sums

    def most_rows(self, rows: int, experts: int, top_k: int, ep: int) -> int:
        """Rows that the busiest rank receives when each of ``ep`` ranks sends ``rows``; a fraction counts as a whole row."""
        if self.kind == "uniform":
            return rows
        return ceil(float(self.rank_shares(experts, top_k, ep).max()) * ep * rows * (1 - ROUNDING))

    def check_against(self, model: ModelSpec, plan: Plan) -> None:
        """Raise ConfigurationError when ``model`` under ``plan`` cannot load experts like this."""
        if self.kind != "uniform" and plan.routing == "uniform":
            raise ConfigurationError(f"load ({self.kind}): plan.routing uniform gives every expert the same (legal: uniform)")
        if self.kind != "uniform" and not model.expert_counts:
            raise ConfigurationError(f"load ({self.kind}): {model.name} has no experts (legal: uniform)")
        for experts, top_k in model.expert_choices:
            self.shares(experts, top_k)


def _capped(shares: "NDArray[np.float64]", most: float) -> "NDArray[np.float64]":
    """Shares of at most ``most``; what is cut off goes to the others in proportion."""
    full = shares > most
    while full.any():
        rest = ~full
        scaled = shares * ((1 - most * full.sum()) / shares[rest].sum() if rest.any() else 0)
        scaled[full] = most
        if not (scaled[rest] > most * (1 + ROUNDING)).any():
            return scaled
        full |= scaled > most * (1 + ROUNDING)
    return shares
