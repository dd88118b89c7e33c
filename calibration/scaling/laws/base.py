"""What a scaling law is: names and bounds of its parameters, its terms, and its published coefficients."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from calibration.scaling.points import Floats, Points
from configuration.errors import ConfigurationError, unknown


@dataclass(frozen=True)
class Parameter:
    """One coefficient of a law.

    ``logarithmic``: the fit moves its logarithm. ``bounds`` and ``start`` are ranges of what the fit moves, with N and D counted in their geometric means;
    random starts are drawn from ``start``.
    """

    name: str
    logarithmic: bool
    bounds: tuple[float, float]
    start: tuple[float, float]


SCALE_BOUNDS = (-25.0, 6.0)
SCALE_START = (-2.5, 0.9)


def scale(name: str) -> Parameter:
    """A positive factor of a term whose value at the centre is between a tenth of a nat and the loss itself."""
    return Parameter(name, True, SCALE_BOUNDS, SCALE_START)


def exponent(name: str, start: tuple[float, float] = (0.05, 0.9)) -> Parameter:
    """An exponent with which a term falls."""
    return Parameter(name, False, (1e-3, 3.0), start)


def coefficient(name: str) -> Parameter:
    """A coefficient of a law that is evaluated and not fitted."""
    return Parameter(name, False, (-math.inf, math.inf), (0.0, 0.0))


@dataclass(frozen=True)
class Published:
    """A coefficient set from the literature, by the law's parameter names, and where it stands."""

    coefficients: Mapping[str, float]
    source: str


class Law(ABC):
    """A scaling law L(N, D, ...) in nats per token.

    ``theta`` are the parameters that a fit moves: [..., p], logarithms where a parameter is logarithmic. Points may be counted in any units of N and D;
    natural coefficients are those for N in parameters and D in tokens.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    formula: ClassVar[str]
    source: ClassVar[str]
    parameters: ClassVar[tuple[Parameter, ...]]
    variables: ClassVar[tuple[str, ...]]
    published: ClassVar[Mapping[str, Published]] = {}

    @abstractmethod
    def log_loss(self, theta: Floats, points: Points) -> Floats:
        """ln L [..., n] for ``theta`` [..., p] at n points."""

    def theta_of(self, coefficients: Mapping[str, float]) -> Floats:
        """Natural coefficients by name as theta. Raises ConfigurationError when one is missing or not positive where it must be."""
        import numpy as np

        names = [parameter.name for parameter in self.parameters]
        if set(coefficients) != set(names):
            raise ConfigurationError(f"law {self.name}: expected the coefficients {', '.join(names)}, got {', '.join(coefficients)}")
        theta = []
        for parameter in self.parameters:
            value = coefficients[parameter.name]
            if parameter.logarithmic and value <= 0:
                raise ConfigurationError(f"law {self.name}: {parameter.name} must be positive, got {value}")
            theta.append(np.log(value) if parameter.logarithmic else value)
        return np.array(theta)

    def natural(self, theta: Floats) -> Floats:
        """The coefficients themselves [..., p] of ``theta`` [..., p]."""
        import numpy as np

        logarithmic = np.array([parameter.logarithmic for parameter in self.parameters])
        return np.where(logarithmic, np.exp(np.where(logarithmic, theta, 0.0)), theta)

    def coefficients_of(self, theta: Floats) -> dict[str, float]:
        """Natural coefficients by name of one theta [p]."""
        return {parameter.name: float(value) for parameter, value in zip(self.parameters, self.natural(theta), strict=True)}

    def loss(self, theta: Floats, points: Points) -> Floats:
        """L [..., n] in nats per token."""
        import numpy as np

        return np.exp(self.log_loss(theta, points))

    def published_theta(self, name: str | None = None) -> Floats:
        """Theta of a published coefficient set; the first when ``name`` is None. Raises ConfigurationError for an unknown one."""
        if not self.published:
            raise ConfigurationError(f"law {self.name}: no coefficients are published")
        if name is not None and name not in self.published:
            raise unknown(f"coefficient set of law {self.name}", name, self.published)
        return self.theta_of(self.published[name or next(iter(self.published))].coefficients)


class FittedLaw(Law):
    """A law that can be fitted: a sum of positive terms, whose logarithms are smooth in theta (log-sum-exp form)."""

    floor: ClassVar[str | None] = "E"
    """The parameter that is the loss no N and D can get under; None for a law without one."""

    levels: ClassVar[Mapping[str, int]] = {}
    """Levels that a table must hold of a variable, where the form asks for more or fewer than fit.FEWEST_LEVELS."""

    @abstractmethod
    def terms(self, theta: Floats, points: Points) -> tuple[Floats, Floats]:
        """Logarithms of the terms [R, k, n] for ``theta`` [R, p], and their derivatives [R, k, n, p] or, where these do not depend on theta, [1, k, n, p]."""

    @abstractmethod
    def recentred(self, theta: Floats, by_log_n: float, by_log_d: float) -> Floats:
        """Theta for the points' ``shifted(by_log_n, by_log_d)`` that gives the same losses as ``theta`` for the points."""

    @abstractmethod
    def projected_starts(self, points: Points) -> Floats:
        """Starts [s, p] by variable projection: exponents on a grid, factors solved linearly. ``points`` are centred."""

    def refusal(self, points: Points) -> str | None:
        """Why ``points`` cannot determine this law, beyond having enough levels and settings; None when they may."""
        return None

    def log_loss(self, theta: Floats, points: Points) -> Floats:
        """ln L [..., n] as the log-sum-exp of the terms."""
        import numpy as np

        terms, _ = self.terms(np.atleast_2d(theta), points)
        losses = log_sum_exp(terms)[0]
        return losses if np.ndim(theta) > 1 else losses[0]


def log_sum_exp(terms: Floats) -> tuple[Floats, Floats]:
    """ln of the sum over the terms' axis of [R, k, n], and each term's share of the sum [R, k, n]."""
    import numpy as np

    highest = terms.max(axis=1, keepdims=True)
    parts = np.exp(terms - highest)
    total = parts.sum(axis=1, keepdims=True)
    return (highest + np.log(total))[:, 0], parts / total
