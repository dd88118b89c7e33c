"""Training speed of one shape: this trainer's plans against a plain compiled model and Hugging Face's, on one device, one after the other."""

import gc
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from simulator.specs import ModelSpec, load_plan
from simulator.specs.flops import model_flops_per_token
from trainer.bench import contenders
from trainer.bench.contenders import Contender
from trainer.bench.kernel_kinds import by_kind, kernel_times
from trainer.bench.peers import check_peers_can_run
from trainer.bench.timing import timed, wait

SHAPES = ("moe-s1", "moe-s2", "moe-s3")
WARM_UP_STEPS = 3
STEPS_A_REPEAT = {"cpu": 1, "cuda": 5}
"""One after another without waiting in between, as in training: the host may be ahead of the GPU."""


def training_rows(specs: list[ModelSpec], device: str, repeats: int, *, hugging_face: bool, log: Callable[[str], None]) -> list[dict[str, Any]]:
    """A row for each contender and shape. Raises ConfigurationError for a model that the peers cannot express."""
    for spec in specs:
        check_peers_can_run(spec)
    rows = []
    for spec in specs:
        for make in _contenders(spec, device, hugging_face):
            rows.append(_measure(spec, make(), device, repeats))
            log(f"{spec.name}, {rows[-1]['contender']}: {rows[-1]['tokens_per_s']:,.0f} tokens/s{_load(rows[-1])}")
            _forget()
    return rows


def _contenders(spec: ModelSpec, device: str, hugging_face: bool) -> list[Callable[[], Contender]]:
    uniform = {"routing": "uniform", "gradient_clipping": None}
    one_by_one = uniform | {"implementation.launch": "eager"}
    fast, issued, mixed, learned = (
        load_plan(spec, *plan)[0] for plan in (("fast", uniform), ("fast", one_by_one), ("mixed-precision", uniform), ("fast", None))
    )
    found: list[Callable[[], Contender]] = [
        lambda: contenders.plain(spec, mixed, device),
        lambda: contenders.trainer("trainer, plan fast", spec, fast, device),
        lambda: contenders.trainer("trainer, plan fast, kernels issued one by one", spec, issued, device),
        lambda: contenders.trainer("trainer, plan fast, learned routing, clipped", spec, learned, device),
        lambda: contenders.trainer("trainer, plan mixed-precision", spec, mixed, device),
    ]
    if hugging_face:
        for bf16, compiled in ((False, False), (True, False), (True, True)):
            found.append(partial(contenders.hugging_face, spec, mixed, device, bf16=bf16, compiled=compiled))
    return found


def _measure(spec: ModelSpec, contender: Contender, device: str, repeats: int) -> dict[str, Any]:
    for _ in range(WARM_UP_STEPS):
        contender.step()
    wait(device)
    defaults = spec.training_defaults
    tokens = defaults.micro_batch * defaults.sequence
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    timing = timed(contender.step, device, repeats, calls=STEPS_A_REPEAT[device])
    row: dict[str, Any] = {
        "shape": spec.name,
        "contender": contender.name,
        "step": timing.as_dict(),
        "tokens_per_s": tokens / timing.median_s,
        "model_flops_per_s": model_flops_per_token(spec, defaults.sequence) * tokens / timing.median_s,
        "last_loss": float(contender.step()),
        "busiest_over_mean_by_layer": contender.loads(),
    }
    if device == "cuda":
        row |= {"peak_allocated_bytes": torch.cuda.max_memory_allocated(), "peak_reserved_bytes": torch.cuda.max_memory_reserved()}
        kernels = kernel_times(contender.step)
        row |= {"kernel_seconds_by_kind": by_kind(kernels), "launches": sum(kernel.launches for kernel in kernels)}
    return row


def _load(row: dict[str, Any]) -> str:
    loads = row["busiest_over_mean_by_layer"]
    return f", busiest expert over the mean {max(loads):.2f}" if loads else ""


def _forget() -> None:
    gc.collect()
    torch._dynamo.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
