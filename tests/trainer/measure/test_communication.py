"""Which (phase, component) waits for a collective."""

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist

from simulator.components import Component, Phase
from simulator.specs import load_model, load_plan
from trainer.measure.communication import Call, Recorder, group_name, recording
from trainer.model import build_model
from trainer.parallel.parallelize import Parallel
from trainer.parallel.world import World


@pytest.fixture
def world_of_one() -> Iterator[None]:
    dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
    yield
    dist.destroy_process_group()


CALLED, WAITED = (Phase.BACKWARD, Component.GRADIENT_SYNC), (Phase.OPTIMIZER, Component.GRADIENT_SYNC)


@pytest.mark.parametrize(("at_once", "places"), [(False, {CALLED, WAITED}), (True, {CALLED})])
def test_waiting_counts_where_it_is_done(world_of_one: None, at_once: bool, places: set[tuple[Phase, Component]]) -> None:
    with recording(Recorder(at_once)) as recorder:
        recorder.observe(*CALLED)
        work = dist.all_reduce(torch.ones(4), async_op=True)
        recorder.observe(*WAITED)
        work.wait()
    (call,) = recorder.calls
    assert (call.component, call.collective, call.ranks, call.bytes) == (Component.GRADIENT_SYNC, "all-reduce", (0,), 16)
    assert set(recorder.exposed_s) == places
    assert sum(recorder.exposed_s.values()) == pytest.approx(call.waited_s)


def test_a_group_that_the_plan_does_not_cut_is_an_error(world_of_one: None) -> None:
    model = load_model("tiny-moe", {"width": 16, "vocabulary": 16})
    plan, _ = load_plan(model, None, {})
    parallel = Parallel(World(plan), build_model(model, plan, seed=1))
    assert [group_name(parallel, Call(Component.EXPERTS, "all-reduce", group, (0,), 16)) for group in (None, dist.group.WORLD)] == ["all", "all"]
    with pytest.raises(LookupError, match=r"all-reduce of experts over ranks \(0,\): the plan cuts no such group"):
        group_name(parallel, Call(Component.EXPERTS, "all-reduce", dist.new_group([0]), (0,), 16))
