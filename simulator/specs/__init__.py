"""What a user specifies: model, plan, device and expert load; YAML presets beside them in ``simulator/presets``."""

from simulator.specs.expert_load import ExpertLoad
from simulator.specs.model import DenseFeedForward, GroupedQueryAttention, ModelSpec, MoeFeedForward
from simulator.specs.plan import Implementation, Plan
from simulator.specs.presets import MODELS, PLANS, load_model, load_plan

__all__ = [
    "MODELS",
    "PLANS",
    "DenseFeedForward",
    "ExpertLoad",
    "GroupedQueryAttention",
    "Implementation",
    "ModelSpec",
    "MoeFeedForward",
    "Plan",
    "load_model",
    "load_plan",
]
