"""The documents of ``scaling`` as tables and sentences on a terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

TOO_NARROW = 0.1
"""Coverage further below the level of intervals is told in words."""


def show_fit(console: "Console", document: dict[str, Any]) -> None:
    """Coefficients, certificate, sensitivity, backtest and verdict."""
    intervals, rows, certificate = document["intervals"], document["rows"], document["certificate"]
    console.print(f"[bold]{document['law']['formula']}[/bold]")
    if document["choice"] is not None:
        console.print(f"  {document['choice']['words']}")
    coefficients = [(name, f"{value:.7g}", "{:.4g} to {:.4g}".format(*intervals["coefficients"][name])) for name, value in document["coefficients"].items()]
    _table(console, "", ("coefficient", "value", f"{intervals['level']:.0%} interval"), coefficients)
    console.print(
        f"{rows['fitted']} rows fitted, {rows['held_out']} held out, {len(rows['excluded'])} excluded; {intervals['method']}, {intervals['resamples']} refits"
    )
    for exclusion in rows["excluded"]:
        console.print(f"  excluded {exclusion['run']}: {exclusion['reason']}")
    for note in document["notes"]:
        console.print(f"  note: {note}")
    console.print(
        f"objective {document['objective']['value']:.10g} ({document['objective']['kind']}); {certificate['share_at_optimum']:.0%} of "
        f"{certificate['starts']} starts end there, gradient {certificate['steepness']:.1e}, condition number {certificate['condition_number']:.0f}"
    )
    if intervals["share_converged"] < 0.95:
        share = f"{intervals['share_converged']:.0%}"
        console.print(f"  only {share} of the refits converged: the table hardly determines this law, and its intervals are too narrow")
    if certificate["at_bound"]:
        console.print(f"  at the edge of their range, not determined by the table: {', '.join(certificate['at_bound'])}")
    _table(
        console,
        "The same law under other objectives, at the verdict's point",
        ("objective", "loss", "rho"),
        [(each["objective"], *_numbers(each["loss"], each["rho"])) if not each["failure"] else (each["failure"], "", "") for each in document["sensitivity"]],
    )
    _show_forms(console, document)
    _show_backtest(console, document["backtest"], chosen=document["choice"] is not None)
    _show_verdict(console, document["verdict"])


def _show_forms(console: "Console", document: dict[str, Any]) -> None:
    rows = [
        (each["law"], f"{each['parameters']}", each["failure"] or f"{each['held_out_error']:.2%}", "" if each["aicc"] is None else f"{each['aicc']:.1f}")
        for each in document["forms"]
    ]
    _table(console, "Forms on the same runs, judged on the quarter of most compute", ("law", "parameters", "error there", "AICc of all"), rows)
    test = document["lack_of_fit"]
    if test is None:
        console.print("  no setting is repeated: the form cannot be tested against the scatter of seeds")
        return
    says = "the law misses more than seeds scatter" if test["p_value"] < 0.05 else "no more misfit than seeds scatter"
    console.print(
        f"  lack of fit: F({test['misfit_freedom']}, {test['pure_error_freedom']}) = {test['f']:.2f}, p = {test['p_value']:.2g}: {says} "
        f"({test['pure_error_sd']:.2%} of the loss)"
    )


def show_optimal(console: "Console", document: dict[str, Any]) -> None:
    """Choices by number of experts, and what other methods would choose."""
    budget, law = document["budget"], document["law"]
    console.print(f"Budget {budget['flops']:.4g} FLOPs, law {law['name']}, {law['coefficients_from']}")
    rows = []
    for choice in document["choices"]:
        total = "-" if choice["total_parameters"] is None else f"{choice['total_parameters']:.3g}"
        interval = "-" if choice["n_interval"] is None else "{:.3g} to {:.3g}".format(*choice["n_interval"])
        band = "{:.3g} to {:.3g}".format(*choice["band"])
        rows.append((
            f"{choice['experts']:g}", f"{choice['n']:.4g}", interval, band, f"{choice['d']:.4g}", f"{choice['tokens_per_parameter']:.3g}", total,
            f"{choice['loss']:.4f}",
        ))  # fmt: skip
    headers = ("experts", "N", f"{document['level']:.0%} interval", f"N within {document['band']:.1%} loss", "D", "D/N", "all parameters", "loss")
    _table(console, "", headers, rows)
    for choice in document["choices"]:
        for warning in filter(None, ("The memory limit binds." if choice["limited_by_memory"] else "", choice["beyond"])):
            console.print(f"{choice['experts']:g} experts: {warning}")
    for check in document["cross_checks"]:
        verdict = "agrees" if check["agrees"] else f"DISAGREES: by the law that costs {check['excess_loss']:.2%} of loss"
        slope = f"N ~ C^{check['exponent']:.3f} ± {check['exponent_se']:.3f}"
        console.print(f"{check['method']} ({check['budgets']} budgets, {slope}): N {check['n']:.4g}, {verdict}")


def show_hours(console: "Console", document: dict[str, Any]) -> None:
    """Candidates trained for the hours given, lowest loss first."""
    budget, law = document["budget"], document["law"]
    console.print(f"{budget['hours']:g} hours on {budget['fabric']}, models scaled from {budget['model']}, law {law['name']}, {law['coefficients_from']}")
    rows = []
    for choice in document["choices"][:10]:
        timed = choice["candidate"]
        interval = "-" if choice["loss_interval"] is None else "{:.4f} to {:.4f}".format(*choice["loss_interval"])
        shape, counts = f"{timed['layers']} x {timed['width']}", (timed["n"], timed["total_parameters"])
        speed = (f"{1e3 * timed['step_s']:.4g}", f"{timed['flops_per_s']:.3g}")
        outcome = (f"{choice['d']:.3g}", f"{choice['tokens_per_parameter']:.3g}", f"{choice['loss']:.4f}", interval, "yes" if choice["within_band"] else "")
        rows.append((shape, f"{timed['experts']:g}", *(f"{number:.3g}" for number in counts), *speed, *outcome))
    near = f"within {document['band']:.1%}"
    headers = ("layers x width", "experts", "N", "all", "step (ms)", "6ND/s", "D", "D/N", "loss", f"{document['level']:.0%} interval", near)
    _table(console, "", headers, rows)
    if document["largest_is_best"]:
        console.print("The best is the largest candidate that the device holds: memory or the range of candidates binds, not time.")
    if document["choices"][0]["beyond"]:
        console.print(document["choices"][0]["beyond"])


def show_laws(console: "Console", document: dict[str, Any]) -> None:
    """Every law with its published coefficients."""
    for law in document["laws"]:
        kind = "fitted" if law["fitted"] else "published coefficients only"
        console.print(f"[bold]{law['name']}[/bold] ({kind}; varies {', '.join(law['variables'])}): {law['formula']}")
        for name, published in law["published"].items():
            values = ", ".join(f"{key} {value:.6g}" for key, value in published["coefficients"].items())
            console.print(f"  {name}: {values} ({published['source']})")


def _show_backtest(console: "Console", backtest: dict[str, Any], *, chosen: bool) -> None:
    held_out, rolling = backtest["held_out"], backtest["rolling"]
    if held_out:
        law = f", law {held_out['law']}" if chosen else ""
        _errors(console, f"Held out above {held_out['above_flops']:.4g} FLOPs, {held_out['fitted_rows']} rows fitted{law}", held_out, backtest["level"])
    if rolling["runs"]:
        _errors(console, f"Rolling origin, {len(rolling['cuts'])} cuts", rolling, backtest["level"])
        if chosen:
            laws = ", ".join(f"{cut['law']} ({cut['fitted_rows']} rows)" for cut in rolling["cuts"])
            console.print(f"law chosen anew below each cut, by the rows there: {laws}")
        asked = backtest["widening"]
        words = f"what forecasts inside the fitted runs ask for: intervals widened {asked['factor']:.2f} times"
        if asked["log_nd"] is not None:
            words += f", those of a loss at {backtest['level']:.0%} not under ± {asked['least']:.2%}, growing with N D beyond the runs"
        console.print(words)
        if rolling["coverage"] < backtest["level"] - TOO_NARROW:
            console.print(f"they are too narrow: {rolling['coverage']:.0%} of the forecasts above lie in intervals of {backtest['level']:.0%}")
    for reason in backtest["skipped"]:
        console.print(f"  no forecast: {reason}")


def _errors(console: "Console", title: str, part: dict[str, Any], level: float) -> None:
    rows = []
    for each in [*part["by_factor"], part]:
        top = each.get("factor_up_to")
        name = "all" if "by_factor" in each else f"{each['factor_above']:g} to {top:g}" if top else f"above {each['factor_above']:g}"
        rows.append((
            name, str(each["runs"]), f"{each['mean_absolute_relative_error']:.2%}", f"{each['bias']:+.2%}", f"{each['coverage']:.0%}",
            f"{each['no_floor_error']:.2%}", f"{each['nearest_run_error']:.2%}",
        ))  # fmt: skip
    _table(console, title, ("times the compute", "runs", "error", "bias", f"coverage of {level:.0%}", "error without floor", "nearest run"), rows)


def _show_verdict(console: "Console", verdict: dict[str, Any]) -> None:
    low, high = verdict["loss_interval"]
    console.print(f"Loss {verdict['loss']:.4f} nats per token ({low:.4f} to {high:.4f}) at {verdict['n']:.3g} parameters, {verdict['d']:.3g} tokens.")
    console.print(verdict["words"])
    if verdict["floor"] is not None and verdict["floor_share"] < 1e-6:
        console.print("The table shows no floor of the loss.")
    elif verdict["floor"] is not None:
        console.print(f"Floor {verdict['floor']:.4f} nats: {verdict['floor_share']:.0%} of the loss, which no parameters and no tokens remove.")
    costs = (("nats_per_flop", 1e18), ("nats_per_byte", 1e9), ("nats_per_hour", 1.0))
    gains = []
    for gain in verdict["gains"]:
        per = (None if gain[key] is None else gain[key] * unit for key, unit in costs)
        gains.append((gain["doubled"], f"{gain['nats']:.4f}", "{:.4f} to {:.4f}".format(*gain["interval"]), *_numbers(*per)))
    _table(console, "Loss gained by doubling one quantity (nats per token)", ("doubled", "gain", "interval", "per 1e18 FLOPs", "per GB", "per hour"), gains)
    for run in verdict["next_runs"]:
        experts = f", {run['experts']:g} experts" if run["experts"] > 1 else ""
        console.print(
            f"To know the {run['target']} better, train {run['n']:.3g} parameters on {run['d']:.3g} tokens{experts} ({run['flops']:.2g} FLOPs): "
            f"it removes {run['variance_removed']:.0%} of the variance."
        )


def _numbers(*values: float | None) -> tuple[str, ...]:
    return tuple("-" if value is None else f"{value:.4g}" for value in values)


def _table(console: "Console", title: str, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.table import Table

    if title:
        console.print(title)
    table = Table()
    for index, header in enumerate(headers):
        table.add_column(header, justify="right" if index else "left")
    for row in rows:
        table.add_row(*row)
    console.print(table)
