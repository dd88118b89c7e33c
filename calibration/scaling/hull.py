"""Whether a point lies among the runs that a fit has seen: laws hold where they were fitted, and everything beyond is said to be an extrapolation."""

from dataclasses import dataclass

from calibration.scaling.points import Points


@dataclass(frozen=True)
class Hull:
    """``inside`` the convex hull of the fitted runs in the logarithms of the law's variables; ``compute_factor`` FLOPs over those of the largest fitted run."""

    inside: bool
    compute_factor: float

    @property
    def words(self) -> str:
        """The warning; empty inside."""
        if self.inside:
            return ""
        far = f" and {self.compute_factor:.3g} times the compute of the largest of them" if self.compute_factor > 1.001 else ""
        return f"Extrapolation: the point lies outside the fitted runs{far}."


def hull_at(fitted: Points, variables: tuple[str, ...], point: Points) -> Hull:
    """Where the single ``point`` lies against the ``fitted`` runs; exact also for runs on a line or a plane."""
    import numpy as np
    from scipy.optimize import linprog

    seen, asked = (np.stack([getattr(points, f"log_{variable}") for variable in variables]) for points in (fitted, point))
    # A convex combination of the runs, within the rounding of a digitised table.
    shifted = seen - asked
    tolerance = 1e-6
    constraints = np.concatenate([shifted, -shifted])
    found = linprog(
        np.zeros(seen.shape[1]), A_ub=constraints, b_ub=np.full(len(constraints), tolerance), A_eq=np.ones((1, seen.shape[1])), b_eq=[1.0], bounds=(0, None)
    )
    return Hull(bool(found.status == 0), float(np.exp(point.log_c[0] - fitted.log_c.max())))
