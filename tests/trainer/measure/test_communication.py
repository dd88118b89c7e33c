"""Which (phase, component) waits for a collective."""

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist

from simulator.components import Component, Phase
from trainer.measure.communication import Recorder, recording


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
