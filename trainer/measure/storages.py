"""Count the bytes of live tensor storages, operation by operation, at dispatch.

Every storage that an operation returns is registered when it is first seen and struck off when its last reference dies. A storage that
is resized in place, as sharded parameters are when they are gathered and freed, is followed too. Of a tensor that is spread over ranks the
local part counts. What an operation allocates and frees inside itself is not seen.
"""

import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from simulator.components import Component, Phase, Role

COLLECTIVES = "c10d"
"""Namespace of operations that write what they are given though their schemas do not say so."""


@dataclass
class Storage:
    """One live or dead storage."""

    bytes: int
    component: Component
    role: Role


@dataclass
class Instant:
    """The bytes alive after an operation; of a stretch of operations, the most."""

    phase: Phase
    component: Component
    operation: str
    live_bytes: int


class StorageTracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows live storages while the mode is open; ``observe`` is told of every change of component.

    ``peak``: the first instant with the most bytes, ``at_peak`` what was alive then. ``stretches``: the highest instant of each
    run of operations of one component in one phase. ``operations`` counts them; views do nothing and do not count.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.phase = Phase.FORWARD
        self.component = Component.INPUTS
        self.live: dict[int, Storage] = {}
        self.live_bytes = 0
        self.peak = Instant(self.phase, self.component, "", 0)
        self.at_peak: list[Storage] = []
        self.stretches: list[Instant] = []
        self.operations: Counter[tuple[Phase, Component]] = Counter()

    def __enter__(self) -> Self:
        """Begin to follow."""
        self._resizes = _resizes_told(self._resized)
        self._resizes.__enter__()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *exception: Any) -> None:
        """Stop following."""
        super().__exit__(*exception)  # type: ignore[no-untyped-call]
        self._resizes.__exit__(None, None, None)

    def observe(self, phase: Phase, component: Component) -> None:
        """Take the component that the following operations belong to."""
        self.phase, self.component = phase, component

    def register(self, tensor: torch.Tensor, role: Role, component: Component) -> None:
        """Count a tensor that existed before the mode was opened."""
        self._add(tensor, role, component)

    def relabel(self, tensor: torch.Tensor, role: Role, component: Component) -> None:
        """Give the storage of ``tensor`` its role once it is known (a gradient is one when it lies in ``.grad``)."""
        key = _local(tensor).untyped_storage()._cdata
        storage = self.live.get(key)
        if storage is None:
            return
        if storage.role is Role.ACTIVATION:
            # A gradient that the forward pass made: it was an activation until now, and so it stays in what was noted of the peak.
            self.live[key] = Storage(storage.bytes, component, role)
        else:
            storage.role, storage.component = role, component

    def bytes_by_component(self, role: Role) -> Counter[Component]:
        """Bytes alive now in ``role``."""
        found: Counter[Component] = Counter()
        for storage in self.live.values():
            if storage.role is role:
                found[storage.component] += storage.bytes
        return found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, then count the storages that it returned for the first time."""
        result = func(*args, **(kwargs or {}))
        role = Role.ACTIVATION if self.phase is Phase.FORWARD else Role.TEMPORARY
        made = [self._add(tensor, role, self.component) for tensor in tree_iter(result) if isinstance(tensor, torch.Tensor)]
        if any(made) or func._schema.is_mutable or func.namespace == COLLECTIVES:
            self._note(_name(func))
        return result

    def _note(self, operation: str) -> None:
        self.operations[self.phase, self.component] += 1
        now = Instant(self.phase, self.component, operation, self.live_bytes)
        if now.live_bytes > self.peak.live_bytes:
            self.peak = now
            self.at_peak = list(self.live.values())
        last = self.stretches[-1] if self.stretches else None
        if last is None or (last.phase, last.component) != (now.phase, now.component):
            self.stretches.append(now)
        elif now.live_bytes > last.live_bytes:
            self.stretches[-1] = now

    def _add(self, tensor: torch.Tensor, role: Role, component: Component) -> bool:
        """Register the storage of ``tensor``; False when it is known."""
        storage = _local(tensor).untyped_storage()
        if storage._cdata in self.live:
            return False
        self._follow(storage, component, role)
        return True

    def _follow(self, storage: torch.UntypedStorage, component: Component, role: Role) -> None:
        self.live[storage._cdata] = Storage(storage.nbytes(), component, role)
        self.live_bytes += storage.nbytes()
        weakref.finalize(storage, self._remove, storage._cdata)

    def _resized(self, storage: torch.UntypedStorage) -> None:
        """Take the new size; a storage that was not followed is one that waited empty for what a collective brings."""
        known = self.live.get(storage._cdata)
        if known is None:
            self._follow(storage, self.component, Role.COMMUNICATION)
        else:
            self.live_bytes += storage.nbytes() - known.bytes
            self.live[storage._cdata] = Storage(storage.nbytes(), known.component, known.role)
        if storage.nbytes():
            self._note("resize_")

    def _remove(self, key: int) -> None:
        storage = self.live.pop(key, None)
        if storage is not None:
            self.live_bytes -= storage.bytes


def _local(tensor: torch.Tensor) -> torch.Tensor:
    """What this rank has of a tensor that is spread over ranks."""
    local = getattr(tensor, "_local_tensor", tensor)
    return local if isinstance(local, torch.Tensor) else tensor


@contextmanager
def _resizes_told(observer: Any) -> Iterator[None]:
    """Tell ``observer`` of every storage that is resized in place."""
    original = torch.UntypedStorage.resize_

    def resize_(storage: torch.UntypedStorage, size: int) -> Any:
        result = original(storage, size)
        observer(storage)
        return result

    torch.UntypedStorage.resize_ = resize_  # type: ignore[method-assign, assignment, unused-ignore]
    try:
        yield
    finally:
        torch.UntypedStorage.resize_ = original  # type: ignore[method-assign]


def _name(func: Any) -> str:
    """The operation's name; attention goes by one name on every device."""
    name: str = func.overloadpacket._qualified_op_name.removeprefix("aten::")
    if name.startswith("_scaled_dot_product_"):
        return "scaled_dot_product_attention" + ("_backward" if name.endswith("_backward") else "")
    return name
