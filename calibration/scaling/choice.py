"""Which law shall it be? The form that, fitted to the runs of less compute, foretells the runs of most compute best.

The rule, one for every table: forms are judged as in forms.judged, and among those whose error is within one standard error of the least the one of fewest
coefficients is taken (the one-standard-error rule, Breiman et al. 1984, Classification and Regression Trees, section 3.4.3); one that cannot be fitted to all
runs is passed over. A backtest makes the choice anew below every cut: what is to be foretold has no say in the law that foretells it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from calibration.scaling.fit import check_priors, refuse_unidentifiable
from calibration.scaling.forms import Form, attempt, failed, judged, judging_cut
from calibration.scaling.laws import LAWS, fitted_law_named
from calibration.scaling.laws.base import FittedLaw
from calibration.scaling.objective import Objective
from calibration.scaling.points import Points
from configuration.errors import ConfigurationError, unknown

AUTO = "auto"
WITH_EXPERTS = "joint-moe-fixed"
"""The law to name for experts where no other that knows them was judged."""


@dataclass(frozen=True)
class Auto:
    """In the place of a law: the one of ``candidates`` that the runs choose."""

    candidates: tuple[FittedLaw, ...] = field(default_factory=lambda: tuple(law for law in LAWS.values() if isinstance(law, FittedLaw)))


@dataclass(frozen=True)
class Choice:
    """The ``law`` taken, and the ``forms`` it was taken from, judged on ``judged_on`` runs above ``above_flops`` when fitted to the ``judged_from`` others."""

    law: FittedLaw
    forms: tuple[Form, ...]
    above_flops: float
    judged_from: int
    judged_on: int

    @property
    def least(self) -> Form:
        """The form of least error among the laws."""
        return _able(self.forms)[0]

    @property
    def words(self) -> str:
        """Which law was taken and why, in one sentence."""
        taken, least = next(form for form in self.forms if form.law == self.law.name), self.least
        where = f"the {self.judged_on} runs of most compute, fitted to the {self.judged_from} others"
        if taken == least:
            return f"law {taken.law} was chosen: the least error on {where} ({taken.held_out_error:.2%}), no form of fewer coefficients within a standard error"
        return (
            f"law {taken.law} was chosen: on {where}, it errs by {taken.held_out_error:.2%}, within a standard error ({least.held_out_se:.2%}) of the least "
            f"({least.law}, {least.held_out_error:.2%}), with {taken.parameters} coefficients for {least.parameters}"
        )


def law_or_auto(name: str) -> FittedLaw | Auto:
    """The fitted law of that name, or Auto for "auto". Raises ConfigurationError for another name."""
    if name == AUTO:
        return Auto()
    if name not in LAWS:
        raise unknown("law", name, (AUTO, *LAWS))
    return fitted_law_named(name)


def candidates_for(law: FittedLaw | Auto, points: Points) -> tuple[FittedLaw, ...]:
    """The laws that the columns and levels of ``points`` allow; a named law whatever they allow."""
    if isinstance(law, FittedLaw):
        return (law,)
    return tuple(candidate for candidate in law.candidates if _allowed(candidate, points))


def check_declared(objective: Objective, law: FittedLaw | Auto) -> None:
    """Raises ConfigurationError for priors that ``law`` has no place for."""
    if isinstance(law, FittedLaw):
        check_priors(objective, law)
    elif objective.priors:
        raise ConfigurationError(f"--prior {next(iter(objective.priors))}: coefficients mean different things in different laws, name the law (--law)")


def choose(points: Points, auto: Auto, objective: Objective, seed: int = 0) -> Choice:
    """The choice that ``points``, all of which it may see, make. Raises ConfigurationError when no form can be judged on them, or for priors."""
    import numpy as np

    check_declared(objective, auto)
    forms = list(judged(points, auto.candidates, objective, seed))
    while (best := best_of(forms)) is not None:
        law = next(candidate for candidate in auto.candidates if candidate.name == best.law)
        whole = attempt(points, law, objective, seed)
        if not isinstance(whole, str):
            cut = judging_cut(points)
            above = int(np.sum(points.log_c > cut))
            return Choice(law, tuple(forms), math.exp(cut), len(points) - above, above)
        forms[forms.index(best)] = failed(law, whole)
    raise ConfigurationError(f"law {AUTO}: no form can be judged: {'; '.join(dict.fromkeys(form.failure for form in forms if form.failure))}")


def best_of(forms: Sequence[Form]) -> Form | None:
    """The rule itself: of the laws whose error is within one standard error of the least, that of fewest coefficients; of equals the better one.

    None where no law has an error.
    """
    able = _able(forms)
    if not able:
        return None
    most = _error(able[0]) + (able[0].held_out_se or 0.0)
    return min((form for form in able if _error(form) <= most), key=lambda form: (form.parameters, _error(form)))


def taken(law: FittedLaw | Auto, points: Points, objective: Objective, seed: int = 0) -> tuple[FittedLaw, Choice | None]:
    """A named law itself, or the one that ``points`` choose with the choice. Raises ConfigurationError (see choose)."""
    if isinstance(law, FittedLaw):
        return law, None
    choice = choose(points, law, objective, seed)
    return choice.law, choice


def choice_notes(choice: Choice, points: Points) -> list[str]:
    """What the chosen law cannot say of ``points``."""
    import numpy as np

    if "e" in choice.law.variables or np.ptp(points.log_e) <= 0.01:
        return []
    joint = next((form.law for form in _able(choice.forms) if "e" in LAWS[form.law].variables), WITH_EXPERTS)
    return [f"the verdict on experts (E) needs a joint law: the chosen one says nothing of them; ask again with --law {joint}"]


def choice_document(choice: Choice) -> dict[str, Any]:
    """As plain data, but for the forms, which have a place of their own."""
    return {
        "law": choice.law.name,
        "words": choice.words,
        "rule": "least error on the runs of most compute; within one standard error of it, fewest coefficients",
        "above_flops": choice.above_flops,
        "judged_from": choice.judged_from,
        "judged_on": choice.judged_on,
    }


def _allowed(law: FittedLaw, points: Points) -> bool:
    try:
        refuse_unidentifiable(points, law)
    except ConfigurationError:
        return False
    return True


def _able(forms: Sequence[Form]) -> list[Form]:
    """The laws with an error, the least first; a power law without a floor is a baseline and no law."""
    return sorted((form for form in forms if form.law in LAWS and form.held_out_error is not None), key=lambda form: (_error(form), form.parameters))


def _error(form: Form) -> float:
    return math.inf if form.held_out_error is None else form.held_out_error
