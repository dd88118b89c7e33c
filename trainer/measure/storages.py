"""Count the bytes of live tensor storages, operation by operation, at dispatch.

Every storage that an operation returns is registered when it is first seen and struck off when its last reference dies.
What an operation allocates and frees inside itself is not seen.
"""

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from simulator.components import Component, Phase, Role


@dataclass
class Storage:
    """One live or dead storage."""

    bytes: int
    phase: Phase
    component: Component
    operation: str
    role: Role


@dataclass(frozen=True)
class Instant:
    """The bytes alive after one operation that allocated."""

    phase: Phase
    component: Component
    operation: str
    live_bytes: int


class StorageTracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows live storages while the mode is open; ``observe`` is told of every change of component."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.phase = Phase.FORWARD
        self.component = Component.INPUTS
        self.live: dict[int, Storage] = {}
        self.live_bytes = 0
        self.instants: list[Instant] = []
        self.peak_bytes = 0
        self.at_peak: dict[int, Storage] = {}

    def observe(self, phase: Phase, component: Component) -> None:
        """Take the component that the following operations belong to."""
        self.phase, self.component = phase, component

    def register(self, tensor: torch.Tensor, role: Role, component: Component) -> None:
        """Count a tensor that existed before the mode was opened."""
        self._add(tensor, "", role, component)

    def begin_step(self) -> None:
        """Forget peak and instants; live storages stay."""
        self.instants = []
        self.peak_bytes = 0
        self.at_peak = {}

    def relabel(self, tensor: torch.Tensor, role: Role, component: Component) -> None:
        """Give the storage of ``tensor`` its role once it is known (a gradient is one when it lies in ``.grad``)."""
        storage = self.live.get(tensor.untyped_storage()._cdata)
        if storage is not None:
            storage.role, storage.component = role, component

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, then count the storages that it returned for the first time."""
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket._qualified_op_name.removeprefix("aten::")
        role = Role.ACTIVATION if self.phase is Phase.FORWARD else Role.TEMPORARY
        before = self.live_bytes
        for tensor in tree_iter(result):
            if isinstance(tensor, torch.Tensor):
                self._add(tensor, name, role, self.component)
        if self.live_bytes != before:
            self.instants.append(Instant(self.phase, self.component, name, self.live_bytes))
            if self.live_bytes > self.peak_bytes:
                self.peak_bytes = self.live_bytes
                self.at_peak = dict(self.live)
        return result

    def _add(self, tensor: torch.Tensor, operation: str, role: Role, component: Component) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.live:
            return
        self.live[key] = Storage(storage.nbytes(), self.phase, component, operation, role)
        self.live_bytes += storage.nbytes()
        weakref.finalize(storage, self._remove, key)

    def _remove(self, key: int) -> None:
        storage = self.live.pop(key, None)
        if storage is not None:
            self.live_bytes -= storage.bytes
