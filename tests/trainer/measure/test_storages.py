import torch
from torch import nn

from simulator.components import Component, Phase, Role
from trainer.measure.scope import backward, phase, scope, tracking
from trainer.measure.storages import StorageTracker


def test_a_storage_counts_from_the_operation_that_makes_it_to_its_last_reference() -> None:
    tracker = StorageTracker()
    with tracker:
        first = torch.zeros(10)
        second = first + 1
        assert tracker.live_bytes == 2 * 40
        del first
        assert tracker.live_bytes == 40
        del second
    assert tracker.live_bytes == 0
    assert tracker.peak.live_bytes == 80
    assert tracker.peak.operation == "add"


def test_views_and_work_in_place_make_no_storage_but_only_views_are_no_operation() -> None:
    tracker = StorageTracker()
    with tracker:
        x = torch.zeros(4, 6)
        x.view(24).add_(1)
        x.t()[1:3].mul_(2)
    assert tracker.live_bytes == 96
    assert tracker.operations.total() == 3


def test_two_tensors_on_one_storage_count_once() -> None:
    tracker = StorageTracker()
    x = torch.zeros(8)
    tracker.register(x, Role.PARAMETER, Component.HEAD)
    tracker.register(x[2:], Role.INPUT, Component.INPUTS)
    assert tracker.live_bytes == 32
    assert tracker.bytes_by_component(Role.PARAMETER) == {Component.HEAD: 32}


def test_the_peak_knows_roles_that_are_told_afterwards() -> None:
    tracker = StorageTracker()
    with tracker:
        x = torch.zeros(8)
        tracker.observe(Phase.BACKWARD, Component.HEAD)
        y = torch.zeros(8)
    tracker.relabel(y, Role.GRADIENT, Component.HEAD)
    assert sorted((storage.role, storage.bytes) for storage in tracker.at_peak) == [(Role.ACTIVATION, 32), (Role.GRADIENT, 32)]
    assert x.numel() == y.numel()


def test_a_gradient_that_forward_made_was_an_activation_at_a_peak_before_it_was_taken() -> None:
    tracker = StorageTracker()
    with tracker:
        x = torch.zeros(8)
    tracker.relabel(x, Role.GRADIENT, Component.HEAD)
    assert [storage.role for storage in tracker.at_peak] == [Role.ACTIVATION]
    assert tracker.bytes_by_component(Role.GRADIENT) == {Component.HEAD: 32}


def test_attention_has_one_name_on_every_device() -> None:
    tracker = StorageTracker()
    x = torch.rand(1, 2, 4, 8)
    with tracker:
        torch.nn.functional.scaled_dot_product_attention(x, x, x, is_causal=True)
    assert tracker.peak.operation == "scaled_dot_product_attention"


def test_backward_operations_belong_to_the_scope_of_their_forward() -> None:
    seen: list[tuple[Phase, Component]] = []
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    with tracking(lambda name, component: seen.append((name, component))):
        with phase(Phase.FORWARD, Component.INPUTS):
            with scope(Component.QKV):
                x = first(torch.ones(2, 4))
            with scope(Component.HEAD):
                loss = second(x).sum()
        backward(loss)
    components = [component for name, component in seen if name is Phase.BACKWARD]
    assert components == [Component.INPUTS, Component.TOTAL_LOSS, Component.HEAD, Component.QKV]


def test_outside_every_scope_is_the_frame_of_the_step() -> None:
    seen: list[tuple[Phase, Component]] = []
    with tracking(lambda name, component: seen.append((name, component))):
        with phase(Phase.OPTIMIZER, Component.GRADIENT_CLIPPING):
            pass
        with scope(Component.OPTIMIZER):
            pass
    expected = [Component.GRADIENT_CLIPPING, Component.INPUTS, Component.OPTIMIZER, Component.INPUTS]
    assert seen == [(Phase.OPTIMIZER, component) for component in expected]
