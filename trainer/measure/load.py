"""How the measured step loaded the experts."""

from simulator.records.step_report import LayerLoad
from trainer.parallel.parallelize import Parallel
from trainer.step import StepLosses


def layer_loads(parallel: Parallel, losses: StepLosses) -> list[LayerLoad]:
    """One row a MoE layer of this stage, in order; none for a dense model. Reads the counts from the device."""
    counts_LE = [counts_E.tolist() for counts_E in losses.counts_LE]
    dropped_L = [int(dropped) for dropped in losses.dropped_L] or [0] * len(counts_LE)
    return [LayerLoad.of(layer, counts_E, dropped) for layer, counts_E, dropped in zip(parallel.moe_layers, counts_LE, dropped_L, strict=True)]
