"""What pricing needs to know about a network; an explicit graph and a symmetric one both offer it."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fabrics.spec import Routing

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


class Network(Protocol):
    """Links and what flows put on them. In a symmetric network a link stands for all links that always carry the same."""

    @property
    def bytes_per_s(self) -> FloatArray:
        """Rate of each link."""
        ...

    @property
    def kinds(self) -> list[str]:
        """The kinds of link that occur."""
        ...

    @property
    def kind_index(self) -> IntArray:
        """Index into ``kinds`` of each link."""
        ...

    @property
    def opposite(self) -> IntArray:
        """Index of each link's other direction; its own where there is none."""
        ...

    def loads(self, src: IntArray, dst: IntArray, size: FloatArray, routing: Routing) -> FloatArray:
        """Bytes on every link when ``size[i]`` bytes go from rank ``src[i]`` to rank ``dst[i]``."""
        ...

    def latencies(self, src: IntArray, dst: IntArray) -> tuple[FloatArray, IntArray]:
        """Wire latency of each pair (the slowest of its shortest paths) and the mask of link kinds (bits in the order of ``kinds``) on its way."""
        ...

    def link_tier(self, link: int) -> str:
        """Kind of switch that the link leads up to ("nvlink", "leaf", "spine", ...); "accelerator" between accelerators."""
        ...

    def link_name(self, link: int) -> str:
        """ "leaf0->spine1"."""
        ...
