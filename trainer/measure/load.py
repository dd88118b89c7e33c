"""How the measured step loaded the experts."""

from simulator.records.step_report import LayerLoad
from simulator.specs import ModelSpec, MoeFeedForward
from trainer.step import StepLosses


def layer_loads(spec: ModelSpec, losses: StepLosses) -> list[LayerLoad]:
    """One row a MoE layer, in order; none for a dense model. Reads the counts from the device."""
    layers = [layer for layer, group in enumerate(group for group in spec.blocks for _ in range(group.count)) if isinstance(group.feed_forward, MoeFeedForward)]
    counts_LE = [counts_E.tolist() for counts_E in losses.counts_LE]
    dropped_L = [int(dropped) for dropped in losses.dropped_L] or [0] * len(counts_LE)
    return [LayerLoad.of(layer, counts_E, dropped) for layer, counts_E, dropped in zip(layers, counts_LE, dropped_L, strict=True)]
