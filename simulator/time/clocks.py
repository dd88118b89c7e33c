"""The clocks of host, device and network.

The host issues operations one after another; the device runs one when it was issued and the one before is done; a read of the
host waits for the device; parameters are gathered and gradients reduced on streams of their own, beside the computation.
"""

from dataclasses import dataclass, field

from simulator.program.operations import Stream


@dataclass
class Clocks:
    """Seconds since the step began, of the host, the device's compute stream and its streams of communication."""

    host_s: float = 0.0
    device_s: float = 0.0
    gather_s: float = 0.0
    reduce_s: float = 0.0

    def run(self, item: "Item") -> None:
        """Let operations pass: the device starts them no earlier than issued, and issues hide behind running work."""
        if isinstance(item, Piece):
            self.device_s = max(self.device_s + item.device_s, self.host_s + item.from_issue_s)
            self.host_s += item.host_s
            if item.waits:
                self.host_s = max(self.host_s, self.device_s)
        elif isinstance(item, Send):
            self.host_s += item.host_s
            self.send(item.stream, item.seconds)
        else:
            self.join(item.stream)

    def send(self, stream: Stream, seconds: float) -> None:
        """Start a collective: a gather when it was issued, a reduction when what has been computed so far is there."""
        if stream is Stream.GATHER:
            self.gather_s = max(self.gather_s, self.host_s) + seconds
        else:
            self.reduce_s = max(self.reduce_s, self.host_s, self.device_s) + seconds

    def join(self, stream: Stream) -> None:
        """Let the device wait for a stream."""
        self.device_s = max(self.device_s, self.gather_s if stream is Stream.GATHER else self.reduce_s)

    def wait_until(self, seconds: float) -> float:
        """Let the device wait for something that is there at ``seconds``; how long it idles for it."""
        idle = max(0.0, seconds - self.device_s)
        self.device_s += idle
        return idle

    @property
    def now_s(self) -> float:
        """When everything so far is done."""
        return max(self.host_s, self.device_s, self.gather_s, self.reduce_s)


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


@dataclass(frozen=True)
class Send:
    """A collective that goes on a stream of its own."""

    stream: Stream
    host_s: float
    seconds: float


@dataclass(frozen=True)
class Join:
    """The device waits for a stream."""

    stream: Stream


Item = Piece | Send | Join


@dataclass
class PieceBuilder:
    """Collects operations into pieces."""

    pieces: list[Item] = field(default_factory=list)
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
        self._close(waits=True)

    def append(self, item: Send | Join) -> None:
        """Go to another stream, or wait for it."""
        self._close(waits=False)
        self.pieces.append(item)

    def finish(self) -> tuple[Item, ...]:
        """All pieces."""
        self._close(waits=False)
        return tuple(self.pieces)

    def _close(self, *, waits: bool) -> None:
        self.pieces.append(Piece(self._host_s, self._device_s, self._from_issue_s, waits))
        self._host_s = self._device_s = self._from_issue_s = 0.0
