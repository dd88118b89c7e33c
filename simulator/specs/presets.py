"""Load model and plan from a preset's name, a YAML file or a Hugging Face ``config.json``."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd, prod
from pathlib import Path
from typing import Any

from configuration.errors import ConfigurationError
from configuration.files import PresetFolder, read_json
from configuration.overrides import assign
from configuration.spec import validated
from simulator.specs.device import DeviceSpec
from simulator.specs.expert_load import ExpertLoad
from simulator.specs.hugging_face import model_data_from_config
from simulator.specs.model import ModelSpec
from simulator.specs.plan import Plan

_PRESETS = Path(__file__).resolve().parent.parent / "presets"
MODELS = PresetFolder("model", ModelSpec, _PRESETS / "models")
PLANS = PresetFolder("plan", Plan, _PRESETS / "plans")
DEVICES = PresetFolder("device", DeviceSpec, _PRESETS / "devices")
LOADS = PresetFolder("load", ExpertLoad, _PRESETS / "loads")


def load_model(name_or_path: str, overrides: Mapping[str, Any] | None = None) -> ModelSpec:
    """Read a model: preset, YAML file, or ``config.json`` of a supported Hugging Face family.

    Raises ConfigurationError in one line.
    """
    if not name_or_path.endswith(".json"):
        return MODELS.load(name_or_path, overrides)
    path = Path(name_or_path)
    data = model_data_from_config(read_json(path, "model"), str(path))
    for field, value in (overrides or {}).items():
        assign(data, field, value, f"--set model.{field}")
    return validated(ModelSpec, data, str(path))


def load_expert_load(name_or_path: str, overrides: Mapping[str, Any] | None = None) -> ExpertLoad:
    """Read an expert load: preset, YAML file, or the JSON of ``trainer measure`` or ``trainer inspect``.

    Of measured layers the median one counts, by its busiest expert over the mean.
    Raises ConfigurationError in one line.
    """
    if not name_or_path.endswith(".json"):
        return LOADS.load(name_or_path, overrides)
    document = read_json(Path(name_or_path), "load")
    rows = document.get("layer_loads") or document.get("expert_load")
    try:
        row = sorted(rows, key=lambda layer: layer["max_over_mean"])[len(rows) // 2] if rows else {}
        data: dict[str, Any] = {"kind": "histogram", "counts": row["counts"] if "counts" in row else row["shares"]}
    except (KeyError, TypeError):
        raise ConfigurationError(f"load: {name_or_path} holds no measured expert load (expected: JSON of trainer measure or trainer inspect)") from None
    for field, value in (overrides or {}).items():
        assign(data, field, value, f"--set load.{field}")
    return validated(ExpertLoad, data, name_or_path)


@dataclass(frozen=True)
class Default:
    """A value that the user did not give, and where it comes from."""

    field: str
    value: str
    reason: str


def load_plan(
    model: ModelSpec,
    name_or_path: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    ranks: int = 1,
    ranks_reason: str = "one process",
    precision: str = "fp32",
) -> tuple[Plan, list[Default]]:
    """Read a plan, fill what it leaves open and check it against ``model``.

    Left open, ``ranks`` and ``precision`` are the arguments', sequence and micro-batch are the model's, and ``ep`` is the largest degree that divides
    ranks and experts, 1 where blocks are compiled or steps recorded, which it would cut. Returns the plan and every default used. Raises
    ConfigurationError in one line.
    """
    source = "plan" if name_or_path is None else f"plan {name_or_path}"
    data: dict[str, Any] = {} if name_or_path is None else PLANS.data(name_or_path)
    for field, value in (overrides or {}).items():
        assign(data, field, value, f"--set plan.{field}")
    used: list[Default] = []

    def default(field: str, value: Any, reason: str) -> None:
        if field not in data:
            data[field] = value
            used.append(Default(f"plan.{field}", str(value), reason))

    default("ranks", ranks, ranks_reason)
    default("sequence", model.training_defaults.sequence, f"default of {model.name}")
    default("micro_batch", model.training_defaults.micro_batch, f"default of {model.name}")
    default("precision", precision, "what the device is built for")
    several = isinstance(data["ranks"], int) and data["ranks"] > 1 and bool(model.expert_counts)
    if several and _takes_whole_layers(data.get("implementation")):
        default("ep", 1, "compiled blocks and recorded steps take whole layers")
    elif several:
        apart = [degree for field in ("pp", "etp") if isinstance(degree := data.get(field), int) and degree > 0]
        default("ep", gcd(data["ranks"] // prod(apart), *model.expert_counts), "largest degree that divides ranks and experts")
    plan = validated(Plan, data, source)
    plan.check_against(model)
    used += [Default(f"plan.{field}", _shown(getattr(plan, field)), "default of a plan") for field in sorted(set(Plan.model_fields) - set(data))]
    return plan, used


def _takes_whole_layers(implementation: Any) -> bool:
    """Whether what was given asks for compiled blocks or a recorded step."""
    return isinstance(implementation, dict) and (implementation.get("compile") == "block" or implementation.get("launch") == "graph")


def _shown(value: Any) -> str:
    fields = getattr(value, "model_dump", None)
    return ", ".join(f"{name} {choice}" for name, choice in fields().items()) if fields else str(value)
