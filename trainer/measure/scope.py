"""``scope(Component.X)``: which component the running operation belongs to, in forward and, by inheritance, in backward.

Forward: the innermost open scope. Backward: every autograd node belongs to the scope in which it was made; nodes carry rising
sequence numbers and run in falling order, so a scope is an interval of them, and one hook at the last node of each interval
switches the component. Outside every scope the component is INPUTS: data loading and the frame of the step.
Without an observer a scope costs two attribute reads; in compiled code it is nothing, and the operations belong to the scope around it.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from simulator.components import Component, Phase

Observer = Callable[[Phase, Component], None]


class Tracker:
    """Follows one step: calls ``observer`` whenever (phase, component) changes."""

    def __init__(self, observer: Observer) -> None:
        self.observer = observer
        self.phase = Phase.FORWARD
        self.component = Component.INPUTS
        self._starts: list[tuple[int, Component]] = []

    def enter(self, component: Component) -> None:
        """Switch to ``component`` in the current phase."""
        self.component = component
        if self.phase is Phase.FORWARD:
            self._starts.append((_next_sequence_number(), component))
        self.observer(self.phase, component)

    def begin(self, phase: Phase, component: Component) -> None:
        """Start a phase."""
        self.phase = phase
        self.enter(component)

    def begin_backward(self, roots: Sequence[torch.Tensor]) -> None:
        """Start the backward phase of ``roots``: hang one hook on the node that runs first in each forward scope.

        Until the hooks hang the component is INPUTS: that time is the instrument's own. Scopes of the whole step are known, since a pipeline goes forward
        with some micro-batches before it goes backward with others.
        """
        self.begin(Phase.BACKWARD, Component.INPUTS)
        first_numbers = [number for number, _ in self._starts]
        previous = None
        for node in sorted(_nodes(roots), key=_sequence_number, reverse=True):
            interval = bisect_right(first_numbers, _sequence_number(node)) - 1
            if interval >= 0 and interval != previous:
                node.register_prehook(_Switch(self, self._starts[interval][1]))
            previous = interval
        self.enter(Component.TOTAL_LOSS)


class _Switch:
    """A hook that switches the component when a backward node is about to run."""

    def __init__(self, tracker: Tracker, component: Component) -> None:
        self.tracker = tracker
        self.component = component

    def __call__(self, gradients: Any) -> None:
        self.tracker.component = self.component
        self.tracker.observer(Phase.BACKWARD, self.component)


_tracker: Tracker | None = None


@contextmanager
def tracking(observer: Observer) -> Iterator[Tracker]:
    """Report every change of component to ``observer`` while the context is open."""
    global _tracker
    if _tracker is not None:
        raise RuntimeError("a step is being tracked already")
    _tracker = Tracker(observer)
    try:
        yield _tracker
    finally:
        _tracker = None


class scope:  # noqa: N801 - reads like the built-in contexts
    """Context: operations inside belong to ``component``."""

    __slots__ = ("component", "outer")

    def __init__(self, component: Component) -> None:
        self.component = component

    def __enter__(self) -> None:
        if not torch.compiler.is_compiling() and _tracker is not None:
            self.outer = _tracker.component
            _tracker.enter(self.component)

    def __exit__(self, *exception: object) -> None:
        if not torch.compiler.is_compiling() and _tracker is not None:
            _tracker.enter(self.outer)


@contextmanager
def phase(name: Phase, component: Component, then: Component = Component.INPUTS) -> Iterator[None]:
    """Context: operations inside belong to a phase of the step, and to ``component`` where no scope is open; what comes after it belongs to ``then``."""
    if _tracker is not None:
        _tracker.begin(name, component)
    yield
    if _tracker is not None:
        _tracker.enter(then)


@contextmanager
def backward_pass(roots: Sequence[torch.Tensor], then: Component | None = None) -> Iterator[None]:
    """Context: the backward pass of ``roots`` runs inside, its operations attributed to the scopes of the forward pass.

    What comes after it belongs to ``then``, or to the component that ran last.
    """
    if _tracker is not None:
        _tracker.begin_backward(roots)
    yield
    if _tracker is not None and then is not None:
        _tracker.enter(then)


def backward(loss: torch.Tensor) -> None:
    """Run the backward pass of ``loss``, its operations attributed to the scopes of the forward pass."""
    with backward_pass((loss,)):
        torch.autograd.backward(loss)


def _next_sequence_number() -> int:
    return int(torch._C._autograd._get_sequence_nr())


def _sequence_number(node: Any) -> int:
    return int(node._sequence_nr())


def _nodes(roots: Sequence[torch.Tensor]) -> list[Any]:
    seen: dict[Any, None] = {}
    waiting: list[Any] = [root.grad_fn for root in roots]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen or node.name() == "torch::autograd::AccumulateGrad":
            continue
        seen[node] = None
        waiting += [following for following, _ in node.next_functions]
    return list(seen)
