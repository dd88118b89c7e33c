"""Puts the page about scaling together."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from calibration.scaling.document import Findings
from calibration.scaling.figures import draw_isoflops, draw_parity, draw_residuals, draw_slopes
from calibration.scaling.objective import Objective, parse_priors
from calibration.scaling.study import Settings
from reports import provenance
from reports.drawing import picture
from reports.page import Page, Section
from reports.scaling import gains, law_map, loss_against, loss_curves, roofline, tables, verdicts
from reports.scaling.law import fitted
from reports.scaling.logs import Curve, curves
from reports.scaling.settings import Setting, settings_of
from reports.scaling.slopes import VARIABLES, slopes, straightness
from simulator.records.run_table import parse_columns, read_table

LIMITS = (
    "Losses are those of these runs, on this data, with this learning-rate schedule: a slope holds between the runs that it was taken from.",
    "Standard errors are those of the validation sample, or of the spread over seeds where there are several; errors of slopes take two losses as independent.",
    "Training FLOPs that a run does not tell are taken as 6 N D.",
    "A law fitted to small runs is an extrapolation everywhere else; its intervals do not cover a wrong form of the law.",
)

CHECKS = (
    ("slopes", "Loss that a doubling gains by the law, with its 95 % interval; grey: the range of the runs.", draw_slopes, 4.0),
    ("residuals", "Relative error of every run against each variable; runs held out of the fit are marked.", draw_residuals, 5.4),
    ("parity", "Predicted against measured loss; runs held out of the fit are marked.", draw_parity, 5.4),
    (
        "isoflops",
        "Loss by the law for the experts of the largest run, lines of equal compute, the law's optimum, and lowest points of isoFLOP parabolas of such runs.",
        draw_isoflops,
        4.6,
    ),
)


def build(
    runs: Path, logs: Path | None, law: str, count: str, columns: str | None, holdout_above_flops: float | None = None, priors: Sequence[str] = ()
) -> Page:
    """Read a run table (and logs) and draw it. Raises ConfigurationError in one line."""
    study = Settings(Objective(priors=parse_priors(priors)), count=count, holdout_above_flops=holdout_above_flops)
    table = read_table(runs, parse_columns(columns) if columns else None)
    settings = settings_of(table.rows, count)
    drawn, absent = curves(table.rows, logs) if logs is not None else ([], [])
    found = fitted(table, law, study)
    straight = [each for variable in VARIABLES if (each := straightness(settings, variable)) is not None]
    trusted = verdicts.trust(found)
    said = [verdicts.which(settings), verdicts.law(found), *([trusted] if trusted else []), *map(verdicts.straight, straight)]
    if drawn:
        said.insert(0, verdicts.starts(drawn))
    missing = [("Runs without a log", ", ".join(absent))] if absent else []
    return Page(
        name="scaling",
        title="What should be scaled next?",
        subject=f"{len(table.rows)} runs in {len(settings)} settings; N counts {count} parameters",
        verdicts=tuple(said),
        sections=(*_curves(drawn), _against(settings, count), *_slopes(settings), *_law(found), Section("Runs", (), (tables.settings(settings),))),
        provenance=(*provenance.of_page([runs]), *missing, *(("Note", note) for note in (table.notes if isinstance(found, str) else found.notes))),
        limits=LIMITS,
    )


def _curves(drawn: Sequence[Curve]) -> tuple[Section, ...]:
    if not drawn:
        return ()
    figure = picture("loss_curves", "Training loss against tokens; dotted: ln V.", partial(loss_curves.draw, curves=drawn), 4.6)
    return (Section("Loss curves", (), (figure, tables.starts(drawn))),)


def _against(settings: Sequence[Setting], count: str) -> Section:
    label = "Numbers, where there is room: change of the loss for a doubling."
    against = [
        picture(
            f"loss_against_{name}", f"Validation loss against {name}. {label}", partial(loss_against.draw, settings=settings, variable=name, counted=count), 4.4
        )
        for name in VARIABLES
    ]
    return Section("Loss against parameters and tokens", (), tuple(against))


def _slopes(settings: Sequence[Setting]) -> tuple[Section, ...]:
    found = {name: slopes(settings, name) for name in VARIABLES}
    flat = [slope for each in found.values() for slope in each]
    if not flat:
        return ()
    caption = "What a doubling gained, and what compute gained, between neighbouring settings that differ in one quantity alone."
    return (Section("Local slopes", (), (picture("gains", caption, partial(gains.draw, found=found), 4.2), tables.gains(flat))),)


def _law(found: Findings | str) -> tuple[Section, ...]:
    if isinstance(found, str):
        return ()
    experts = float(np.exp(found.fit.points.log_e[found.fit.points.log_c.argmax()]))
    with_experts = f" for {experts:g} experts" if "e" in found.fit.law.variables else ""
    caption = f"The fitted law {found.fit.law.formula}: lines of equal loss (nats per token){with_experts}."
    pictures = [picture("law", caption, partial(law_map.draw, law=found.fit), 5.4)]
    if found.roofline is not None:
        caption = "The loss roofline: what the compute of the run that cost most can attain, by tokens per parameter."
        pictures.append(picture("roofline", caption, partial(roofline.draw, found=found.roofline), 4.6))
    for name, caption, draw, height_inches in CHECKS:
        if name != "isoflops" or found.roofline is not None:
            pictures.append(picture(name, caption, partial(draw, findings=found), height_inches))
    return (Section("Fitted law", (), (*pictures, *tables.forecasts(found), *tables.law(found))),)
