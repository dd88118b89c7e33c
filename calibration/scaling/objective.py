"""What a fit minimises: the sum over runs of a robust function of the residual of the log loss, plus declared priors."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from calibration.scaling.laws.base import FittedLaw, log_sum_exp
from calibration.scaling.points import Floats, Points
from configuration.errors import ConfigurationError

CHINCHILLA_DELTA = 1e-3
"""Huber's delta of Hoffmann et al. 2022: residuals above 0.1 % of the loss count linearly."""


@dataclass(frozen=True)
class Prior:
    """A normal prior on a parameter (on its logarithm where the law moves the logarithm)."""

    mean: float
    sd: float


def parse_priors(texts: Sequence[str]) -> dict[str, Prior]:
    """Read ``NAME=MEAN:SD`` each. Raises ConfigurationError for anything else, and for a name given twice."""
    declared: dict[str, Prior] = {}
    for text in texts:
        name, _, rest = text.partition("=")
        mean, _, sd = rest.partition(":")
        try:
            prior = Prior(float(mean), float(sd))
        except ValueError:
            prior = Prior(math.nan, math.nan)
        if not (name and math.isfinite(prior.mean) and math.isfinite(prior.sd)):
            raise ConfigurationError(f"--prior {text!r}: expected NAME=MEAN:SD, for one beta=0.37:0.07")
        if name in declared:
            raise ConfigurationError(f"--prior {text!r}: {name} is given twice")
        declared[name] = prior
    return declared


@dataclass(frozen=True)
class Objective:
    """Sum of Huber's function of ln L - ln L_predicted; ``delta`` infinite is least squares. Priors by parameter name."""

    delta: float = CHINCHILLA_DELTA
    priors: Mapping[str, Prior] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """In words."""
        kind = "least squares" if self.delta == float("inf") else f"Huber {self.delta:g}"
        return kind + "".join(f", prior {name} ~ {prior.mean:g} ± {prior.sd:g}" for name, prior in self.priors.items())

    def penalty(self, residuals: Floats) -> Floats:
        """Huber's function, elementwise."""
        import numpy as np

        size = np.abs(residuals)
        if self.delta == float("inf"):
            return 0.5 * size**2
        return np.where(size <= self.delta, 0.5 * size**2, self.delta * (size - 0.5 * self.delta))

    def influence(self, residuals: Floats) -> Floats:
        """Its derivative."""
        import numpy as np

        return np.clip(residuals, -self.delta, self.delta)


@dataclass(frozen=True)
class Problem:
    """One or many (R) fits of a law to the same points, that differ in the weights of the rows or in the losses.

    ``weights`` [R, n] (a bootstrap counts each row so often), ``log_loss`` [R or 1, n], ``temperature`` [R]: how many units of objective
    a prior's unit of log likelihood is worth (0 without priors).
    """

    law: FittedLaw
    points: Points
    objective: Objective
    weights: Floats
    log_loss: Floats
    temperature: Floats

    def take(self, chosen: Floats) -> "Problem":
        """The fits that ``chosen`` names."""
        losses = self.log_loss if len(self.log_loss) == 1 else self.log_loss[chosen]
        return Problem(self.law, self.points, self.objective, self.weights[chosen], losses, self.temperature[chosen])

    def value(self, theta: Floats) -> Floats:
        """The objective [R] at ``theta`` [R, p]."""
        import numpy as np

        logs, _ = self.law.terms(theta, self.points)
        predicted, _ = log_sum_exp(logs)
        return np.asarray((self.weights * self.objective.penalty(self.log_loss - predicted)).sum(axis=1) + self._prior_value(theta))

    def expansion(self, theta: Floats) -> tuple[Floats, Floats, Floats]:
        """Gradient [R, p], Hessian [R, p, p] (second derivatives of the terms' logarithms left out: they vanish for most laws) and the
        diagonal of the least-squares Hessian [R, p], which sets the scale of damping."""
        import numpy as np

        logs, slopes = self.law.terms(theta, self.points)
        predicted, shares = log_sum_exp(logs)
        jacobian = weighted_slopes(shares, slopes)
        residuals = self.log_loss - predicted
        influence = self.weights * self.objective.influence(residuals)
        inside = self.weights * (np.abs(residuals) <= self.objective.delta)
        gradient = -np.einsum("rn,rnp->rp", influence, jacobian)
        hessian = np.matmul((jacobian * (inside + influence)[:, :, None]).transpose(0, 2, 1), jacobian)
        hessian -= _curvature_of_terms(influence[:, None] * shares, slopes)
        scale = np.einsum("rn,rnp->rp", self.weights, jacobian**2)
        for index, parameter in enumerate(self.law.parameters):
            prior = self.objective.priors.get(parameter.name)
            if prior is not None:
                strength = self.temperature / prior.sd**2
                gradient[:, index] += strength * (theta[:, index] - prior.mean)
                hessian[:, index, index] += strength
        return gradient, hessian, scale

    def whole_hessian(self, theta: Floats, step: float = 1e-5) -> Floats:
        """The Hessian [R, p, p] with the curvature of the terms, by central differences of the gradient."""
        import numpy as np

        columns = []
        for index in range(theta.shape[1]):
            shift = np.zeros(theta.shape[1])
            shift[index] = step
            columns.append((self.expansion(theta + shift)[0] - self.expansion(theta - shift)[0]) / (2 * step))
        hessian = np.stack(columns, axis=2)
        return np.asarray(0.5 * (hessian + hessian.transpose(0, 2, 1)))

    def steepness(self, theta: Floats) -> Floats:
        """The gradient's largest part [R] per unit of influence: what 'the gradient is zero' is measured in."""
        import numpy as np

        gradient, _, _ = self.expansion(theta)
        predicted, _ = log_sum_exp(self.law.terms(theta, self.points)[0])
        total = (self.weights * np.abs(self.objective.influence(self.log_loss - predicted))).sum(axis=1)
        return np.asarray(np.abs(inward(gradient, theta, *limits(self.law))).max(axis=1) / np.maximum(total, 1e-300))

    def _prior_value(self, theta: Floats) -> Floats:
        value = 0.0 * self.temperature
        for index, parameter in enumerate(self.law.parameters):
            prior = self.objective.priors.get(parameter.name)
            if prior is not None:
                value = value + 0.5 * self.temperature * ((theta[:, index] - prior.mean) / prior.sd) ** 2
        return value


def limits(law: FittedLaw) -> tuple[Floats, Floats]:
    """Lower and upper bounds [p] of a law's theta."""
    import numpy as np

    bounds = np.array([parameter.bounds for parameter in law.parameters])
    return bounds[:, 0], bounds[:, 1]


def inward(gradient: Floats, theta: Floats, lower: Floats, upper: Floats) -> Floats:
    """The gradient without the parts that push a parameter out of its bounds."""
    import numpy as np

    blocked = ((theta <= lower) & (gradient > 0)) | ((theta >= upper) & (gradient < 0))
    return np.where(blocked, 0.0, gradient)


def weighted_slopes(shares: Floats, slopes: Floats) -> Floats:
    """Derivative of the log loss [R, n, p]: the terms' slopes [R or 1, k, n, p] weighted by their shares [R, k, n]."""
    import numpy as np

    if len(slopes) == 1:
        return np.asarray(np.einsum("rkn,knp->rnp", shares, slopes[0]))
    return np.asarray(np.einsum("rkn,rknp->rnp", shares, slopes))


def _curvature_of_terms(weights: Floats, slopes: Floats) -> Floats:
    """Sum over terms and runs of weight [R, k, n] times the outer product of the slopes [R or 1, k, n, p]: [R, p, p]."""
    import numpy as np

    size = slopes.shape[-1]
    if len(slopes) == 1:
        flat = slopes[0].reshape(-1, size)
        outer = (flat[:, :, None] * flat[:, None, :]).reshape(len(flat), -1)
        return np.asarray((weights.reshape(len(weights), -1) @ outer).reshape(-1, size, size))
    flat = slopes.reshape(len(slopes), -1, size)
    return np.asarray(np.matmul((flat * weights.reshape(len(weights), -1, 1)).transpose(0, 2, 1), flat))
