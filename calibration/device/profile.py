"""From fitted coefficients to a device profile: every constant with its source, nothing filled in silently."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from calibration.device.fit import OF_ATTENTION, Coefficient, Fit
from calibration.device.observations import EXPONENTIALS, LISTED_LAUNCHES, Quantity
from configuration.errors import ConfigurationError
from configuration.spec import validated
from simulator.components import Kind
from simulator.specs.device import PRICED_KINDS, DeviceSpec

PRODUCTS = (Kind.GEMM, Kind.GROUPED_GEMM, Kind.ATTENTION)
"""Kinds that are priced by their FLOPs too."""


@dataclass(frozen=True)
class Origin:
    """Where the measurements come from. Where measured: ``host_s``, host time of one call by operation; ``graph_s``, a small kernel in a CUDA graph."""

    name: str
    source: str
    reference: str
    machine: str
    host_and_device_are_one: bool
    memory_bytes: int | None
    host_s: dict[str, float]
    graph_s: float | None


@dataclass(frozen=True)
class Profile:
    """A device, and a sentence for each constant that was not fitted."""

    device: DeviceSpec
    notes: list[str]


def build_profile(fit: Fit, origin: Origin, base: DeviceSpec | None) -> Profile:
    """Constants of ``fit``; peaks and what was not measured are those of ``base``. Raises ConfigurationError where there is nothing to take."""
    notes: list[str] = []
    items = sorted({quantity.item for quantity in fit.coefficients if quantity.term == "flops"})
    common = fit.coefficients[Quantity("launches", Kind.POINTWISE)]
    listed = fit.coefficients.get(LISTED_LAUNCHES)
    kernels: dict[str, Any] = {}
    for kind in PRICED_KINDS:
        rate: dict[str, Any] = {"bytes_per_s": _bandwidth(fit, origin, kind, notes)}
        if (apart := fit.coefficients.get(Quantity("irregular_bytes", kind))) is not None and apart.value > 0:
            rate["irregular_bytes_per_s"] = _rate(apart, origin, f"irregular_bytes_per_s of {kind}", notes)
        if kind in PRODUCTS:
            rate["flops_per_s"] = {item: _flop_rate(fit, origin, kind, item, notes) for item in items}
            rate["backward_flops_per_s"] = _backward_rates(fit, origin, kind, notes)
            rate |= {f"{term}_per_s": _own_rate(fit, origin, Quantity(term, kind), notes) for term in OF_ATTENTION}
        own = fit.coefficients.get(Quantity("launches", kind), common)
        if own != common:
            rate["launch_overhead_s"] = _duration(own, origin, f"launch overhead of {kind}", notes)
        if (further := fit.coefficients.get(Quantity("products", kind))) is not None:
            rate["product_overhead_s"] = _duration(further, origin, f"product_overhead_s of {kind}", notes)
        kernels[kind.value] = rate
    data = {
        "name": origin.name,
        "source": origin.source,
        "machine": origin.machine,
        "host_and_device_are_one": origin.host_and_device_are_one,
        "default_precision": "fp32" if "bf16" not in items else "bf16-mixed",
        "memory_bytes": origin.memory_bytes or (base.memory_bytes if base else None),
        "matrix_workspace_bytes": base.model_dump(mode="json")["matrix_workspace_bytes"] if base else None,
        "peak_flops_per_s": base.model_dump(mode="json")["peak_flops_per_s"] if base else {},
        "launch_overhead_s": _duration(common, origin, "launch overhead", notes),
        "host_overhead_s": _host(origin, base, notes),
        "hook_overhead_s": _of_hooks(base, notes),
        "listed_launch_overhead_s": None if listed is None else _duration(listed, origin, "listed_launch_overhead_s", notes),
        "graph_launch_overhead_s": _in_graph(origin, base, notes),
        "exponentials_per_s": _exponentials(fit, origin, notes),
        "kernels": kernels,
    }
    return Profile(validated(DeviceSpec, data, f"fitted profile {origin.name}"), notes)


def to_yaml(device: DeviceSpec) -> str:
    """The profile as a file that ``--device`` takes: one constant a line."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Numbers as 2.84e+10."""

    def number(dumper: yaml.SafeDumper, value: float) -> yaml.ScalarNode:
        digits, exponent, power = f"{value:.4g}".partition("e")
        return dumper.represent_scalar("tag:yaml.org,2002:float", f"{digits if '.' in digits else digits + '.0'}{exponent}{power}")

    Dumper.add_representer(float, number)
    content = device.model_dump(mode="json", exclude_none=True) | {"memory_bytes": device.memory_bytes}
    for rate in content["kernels"].values():
        for name in [name for name, constants in rate.items() if not constants]:
            del rate[name]
    ordered = {name: content[name] for name in DeviceSpec.model_fields if name in content}
    return yaml.dump(ordered, Dumper=Dumper, sort_keys=False, default_flow_style=None, width=1000, allow_unicode=True)


def _bandwidth(fit: Fit, origin: Origin, kind: Kind, notes: list[str]) -> dict[str, Any]:
    found = fit.coefficients.get(Quantity("bytes", kind))
    if found is None:
        found = Coefficient(fit.shared_bytes.value, None, "the rate that memory-bound kinds share: no operation of this kind was measured")
    if not found.value > 0:
        raise ConfigurationError(
            f"fit: bytes_per_s of {kind} cannot be told from these measurements, nor a rate of all memory-bound kinds: measure more shapes"
        )
    return _rate(found, origin, f"bytes_per_s of {kind}", notes)


def _flop_rate(fit: Fit, origin: Origin, kind: Kind, item: str, notes: list[str]) -> dict[str, Any]:
    found = fit.coefficients.get(Quantity("flops", kind, item))
    if found is None or not found.value > 0:
        why = "no operation of this kind and type was measured" if found is None else "its own comes out as zero"
        general = fit.coefficients.get(Quantity("flops", Kind.GEMM, item))
        if general is None or not general.value > 0:
            raise ConfigurationError(f"fit: {item} flops_per_s of {kind} cannot be told from these measurements ({why}): measure more shapes")
        found = Coefficient(general.value, None, f"the {item} rate of gemm: {why}")
    return _rate(found, origin, f"{item} flops_per_s of {kind}", notes)


def _backward_rates(fit: Fit, origin: Origin, kind: Kind, notes: list[str]) -> dict[str, Any]:
    found = {quantity.item: error for quantity, error in fit.coefficients.items() if (quantity.term, quantity.kind) == ("backward_flops", kind)}
    return {item: _rate(one, origin, f"{item} backward_flops_per_s of {kind}", notes) for item, one in found.items() if one.value > 0}


def _own_rate(fit: Fit, origin: Origin, quantity: Quantity, notes: list[str]) -> dict[str, Any] | None:
    """A rate that a profile has only where it was fitted."""
    found = fit.coefficients.get(quantity)
    if found is None:
        return None
    if found.standard_error is None:
        notes.append(f"{quantity.term}_per_s of {quantity.kind}: left out; it {found.reason}")
        return None
    return _rate(found, origin, f"{quantity.term}_per_s of {quantity.kind}", notes)


def _exponentials(fit: Fit, origin: Origin, notes: list[str]) -> dict[str, Any] | None:
    found = fit.coefficients.get(EXPONENTIALS)
    if found is None or not found.value > 0:
        notes.append(
            "exponentials_per_s: left out; " + ("no kernel that needs them was measured" if found is None else "they cost nothing beside their traffic")
        )
        return None
    return _rate(found, origin, "exponentials_per_s", notes)


def _rate(found: Coefficient, origin: Origin, what: str, notes: list[str]) -> dict[str, Any]:
    """Units per second, from seconds per unit; the error by the first derivative."""
    error = None if found.standard_error is None else found.standard_error / found.value**2
    return _constant(1 / found.value, error, found.reason, origin, what, notes)


def _duration(found: Coefficient, origin: Origin, what: str, notes: list[str]) -> dict[str, Any]:
    return _constant(found.value, found.standard_error, found.reason, origin, what, notes)


def _constant(value: float, error: float | None, reason: str, origin: Origin, what: str, notes: list[str]) -> dict[str, Any]:
    known = error is not None and error < float("inf")
    if reason:
        notes.append(f"{what}: {reason}")
    elif not known:
        notes.append(f"{what}: no standard error; at its bound of zero, or too few measurements for as many constants")
    reference = reason or origin.reference
    constant: dict[str, Any] = {"value": _rounded(value), "origin": "assumed" if reason else "fitted", "reference": reference}
    return constant | ({"standard_error": _rounded(error or 0.0)} if known else {})


def _host(origin: Origin, base: DeviceSpec | None, notes: list[str]) -> dict[str, Any]:
    if origin.host_and_device_are_one:
        return {"value": 0.0, "origin": "assumed", "reference": "operations run where they are issued: their launch overhead is the host's"}
    if origin.host_s:
        return _host_time(list(origin.host_s.values()), origin.reference)
    if base is None:
        raise ConfigurationError("fit: host_overhead_s was not measured (rows 'host_per_call' of --probes), and no --base gives one")
    notes.append("host_overhead_s: of the base device; not measured")
    return base.model_dump(mode="json", exclude_none=True)["host_overhead_s"]  # type: ignore[no-any-return]


def _of_hooks(base: DeviceSpec | None, notes: list[str]) -> dict[str, Any] | None:
    if base is None or base.hook_overhead_s is None:
        return None
    notes.append("hook_overhead_s: of the base device; not measured")
    return base.hook_overhead_s.model_dump(mode="json", exclude_none=True)


def _in_graph(origin: Origin, base: DeviceSpec | None, notes: list[str]) -> dict[str, Any] | None:
    if origin.graph_s is not None:
        return {"value": _rounded(origin.graph_s), "origin": "fitted", "reference": f"{origin.reference}; kernels of 64 elements in a CUDA graph"}
    if base is None or base.graph_launch_overhead_s is None:
        return None
    notes.append("graph_launch_overhead_s: of the base device; not measured")
    return base.graph_launch_overhead_s.model_dump(mode="json", exclude_none=True)


def _host_time(seconds: Sequence[float], reference: str) -> dict[str, Any]:
    from statistics import mean, stdev

    error = stdev(seconds) / len(seconds) ** 0.5 if len(seconds) > 1 else None
    constant = {"value": _rounded(mean(seconds)), "origin": "fitted", "reference": f"{reference}; mean of {len(seconds)} operations"}
    return constant | ({} if error is None else {"standard_error": _rounded(error)})


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
