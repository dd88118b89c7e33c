"""Split AdamW beside the backward is split AdamW after it, on a CPU whose streams are stand-ins: an update that came too early would show in the weights."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch

from simulator.specs import load_model, load_plan
from trainer import beside, step
from trainer.measure.subject import Subject, build_subject, random_micro_batches

STEPS = 3
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "default": ({}, {}),
    "tied embeddings, recomputation": ({"tied_embeddings": True}, {"recomputation": "full"}),
    "packed, gathered, in place": ({}, {"implementation": {"experts": "packed", "permutation": "gather", "cross_entropy": "in-place"}}),
    "chunked": ({}, {"implementation": {"cross_entropy": "chunked"}}),
}


class Stream:
    """Of one thread, all work is in order anyway."""

    def wait_stream(self, other: "Stream") -> None:
        pass


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(beside, "WEIGHTS_AT_ONCE", 1)


def subject(name: str) -> Subject:
    model, settings = CASES[name]
    spec = load_model("tiny-moe", {"blocks.0.count": 2} | model)
    plan, _ = load_plan(spec, None, {"micro_batch": 2, "sequence": 32, "precision": "bf16-split", "gradient_clipping": None} | settings)
    return build_subject(spec, plan, random_micro_batches(spec, plan, seed=0), seed=0, learning_rate=1e-3)


def weights_after(each: Subject) -> list[torch.Tensor]:
    for _ in range(STEPS):
        each.step()
    states = [each.optimizer.state[parameter] for parameter in each.model.parameters()]
    assert all(state["step"].item() == STEPS for state in states)
    return [tensor for parameter, state in zip(each.model.parameters(), states, strict=True) for tensor in (parameter.detach(), state["remainder"])]


@pytest.mark.usefixtures("streams")
@pytest.mark.parametrize("name", CASES)
def test_weights_are_those_of_updates_after_the_backward(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    after = weights_after(subject(name))
    each = subject(name)
    # The norm comes from CUDA kernels.
    monkeypatch.setattr(each.optimizer, "measured_norm", lambda: torch.zeros(()))
    monkeypatch.setattr(step, "_norm_can_wait", lambda plan, sums: True)
    monkeypatch.setattr(step, "_updated_in_backward", lambda plan: True)
    assert all(torch.equal(one, other) for one, other in zip(weights_after(each), after, strict=True))


@pytest.mark.usefixtures("streams")
def test_a_backward_that_fails_leaves_nothing_behind() -> None:
    each = subject("default")
    with pytest.raises(RuntimeError, match="broken"), beside.updates_beside(each.optimizer, torch.ones(())):
        raise RuntimeError("broken")
    assert each.optimizer._scale is None
    assert not each.optimizer._measures_norm
