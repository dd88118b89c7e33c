"""The clocks of host, device and network.

The host issues operations one after another; the device runs one when it was issued and the one before is done; a read of the
host waits for the device; gradients travel beside the backward pass.
"""

from dataclasses import dataclass, field


@dataclass
class Clocks:
    """Seconds since the step began, of the host, the device's compute stream and its gradient-communication stream."""

    host_s: float = 0.0
    device_s: float = 0.0
    network_s: float = 0.0

    def run(self, piece: "Piece") -> None:
        """Let a piece of operations pass: the device starts it no earlier than issued, and issues hide behind running work."""
        self.device_s = max(self.device_s + piece.device_s, self.host_s + piece.from_issue_s)
        self.host_s += piece.host_s
        if piece.waits:
            self.host_s = max(self.host_s, self.device_s)

    def send(self, seconds: float) -> None:
        """Start a collective on gradients that are ready now."""
        self.network_s = max(self.network_s, self.device_s) + seconds

    def join(self) -> None:
        """Let the device wait for the network."""
        self.device_s = max(self.device_s, self.network_s)

    @property
    def now_s(self) -> float:
        """When everything so far is done."""
        return max(self.host_s, self.device_s, self.network_s)


@dataclass(frozen=True)
class Piece:
    """Operations between two waits of the host, as what they do to the clocks.

    ``from_issue_s``: the time from the first issue to the end when the device waits for the host: max over i of (issue of 1 to i
    plus run of i to the last). Runs of pieces are max-plus linear, so equal pieces need no new arithmetic.
    """

    host_s: float
    device_s: float
    from_issue_s: float
    waits: bool


@dataclass
class PieceBuilder:
    """Collects operations into pieces."""

    pieces: list[Piece] = field(default_factory=list)
    _host_s: float = 0.0
    _device_s: float = 0.0
    _from_issue_s: float = 0.0

    def add(self, host_s: float, device_s: float) -> None:
        """Append one operation."""
        self._host_s += host_s
        self._from_issue_s = max(self._from_issue_s + device_s, self._host_s + device_s)
        self._device_s += device_s

    def wait(self) -> None:
        """The host reads from the device."""
        self.pieces.append(Piece(self._host_s, self._device_s, self._from_issue_s, True))
        self._host_s = self._device_s = self._from_issue_s = 0.0

    def finish(self) -> tuple[Piece, ...]:
        """All pieces."""
        self.pieces.append(Piece(self._host_s, self._device_s, self._from_issue_s, False))
        return tuple(self.pieces)
