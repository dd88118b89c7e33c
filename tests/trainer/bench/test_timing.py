"""How kernels are timed: replays of a CUDA graph where one can be had."""

from collections.abc import Callable

import pytest
import torch

from trainer.bench import timing
from trainer.bench.families import FAMILIES
from trainer.bench.kernels import _timed_alike, measure_family
from trainer.bench.optimizers import measure_optimizers
from trainer.bench.shape import BenchShape
from trainer.bench.timing import Timing, timed

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
Work = Callable[[], object]


def work() -> None:
    """Ten microseconds as the host issues it, two of the GPU's."""


def tiny() -> None:
    """Ten microseconds as the host issues it, half a one of the GPU's."""


def large() -> None:
    """As long as the GPU takes for it, which is ten microseconds too."""


EACH_S = {work: 2e-6, tiny: 0.5e-6, large: 10e-6}


class Replay:
    """Of a graph of ``calls``, which need ``each_s`` and none of the host's time."""

    def __init__(self, calls: int, each_s: float) -> None:
        self.seconds = calls * each_s

    def __call__(self) -> None:
        pass


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A GPU of known times; how many calls went into each graph."""
    graphs: list[int] = []

    def seconds(run: Work, device: str, calls: int) -> float:
        return calls * (run.seconds if isinstance(run, Replay) else 10e-6)

    def recorded(run: Work, calls: int) -> Replay | None:
        graphs.append(calls)
        return None if run is waits else Replay(calls, EACH_S[run])

    monkeypatch.setattr(timing, "_seconds", seconds)
    monkeypatch.setattr(timing, "recorded", recorded)
    return graphs


def waits() -> None:
    """Cannot be captured."""


@pytest.mark.parametrize(
    ("run", "graphs", "replays"),
    [
        (large, [200], 1),  # 2 ms / 10 us
        (work, [200, 1000], 1),  # of which 0.4 ms are left, so five times as many
        (tiny, [200, 1000], 4),  # 0.1 ms are left; 1000 calls are the most, and take 0.5 ms
    ],
)
def test_a_graph_holds_as_many_calls_as_last_a_repeat(gpu: list[int], run: Work, graphs: list[int], replays: int) -> None:
    found = timed(run, "cuda", 3)
    assert gpu == graphs
    assert (found.issued, found.calls) == ("graph", replays * graphs[-1])
    assert found.repeats_s == pytest.approx([EACH_S[run]] * 3)
    assert found.as_dict()["issued"] == "graph"


def test_what_cannot_be_captured_is_issued_by_the_host_and_says_so(gpu: list[int]) -> None:
    found = timed(waits, "cuda", 3)
    assert (found.issued, found.calls) == ("host", 200)
    assert found.repeats_s == pytest.approx([10e-6] * 3)


def test_calls_that_are_asked_for_are_issued_by_the_host(gpu: list[int]) -> None:
    assert timed(work, "cuda", 3, calls=7) == Timing(pytest.approx([10e-6] * 3), 7, "host")
    assert gpu == []


def test_forward_is_taken_from_both_as_both_were_timed(gpu: list[int]) -> None:
    assert {found.issued for found in _timed_alike(work, work, "cuda", 3)} == {"graph"}
    forward, both = _timed_alike(work, waits, "cuda", 3)
    assert (forward.issued, both.issued) == ("host", "host")
    assert forward.median_s == pytest.approx(10e-6)


def test_a_cpu_issues_what_it_runs() -> None:
    x = torch.zeros(64)
    assert timed(lambda: x.add_(1.0), "cpu", 2).issued == "host"


def small_linear() -> tuple[Work, Work]:
    """Forward, and forward and backward, of a product that a GPU is done with before the next is issued."""
    x, weight = (torch.randn(64, 64, device="cuda", requires_grad=True) for _ in range(2))
    pull = torch.ones(64, 64, device="cuda")
    return lambda: x @ weight, lambda: torch.autograd.grad(x @ weight, (x, weight), pull)


@on_gpu
@pytest.mark.gpu
def test_a_small_kernel_takes_less_in_a_graph_than_issued_by_the_host() -> None:
    x = torch.zeros(64, device="cuda")
    in_graph, by_host = timed(lambda: x.add_(1.0), "cuda", 5), timed(lambda: x.add_(1.0), "cuda", 5, calls=200)
    assert (in_graph.issued, by_host.issued) == ("graph", "host")
    assert in_graph.median_s < by_host.median_s


@on_gpu
@pytest.mark.gpu
def test_a_backward_pass_is_captured_with_its_forward() -> None:
    forward, both = _timed_alike(*small_linear(), "cuda", 5)
    assert (forward.issued, both.issued) == ("graph", "graph")
    assert forward.median_s < both.median_s < timed(small_linear()[1], "cuda", 5, calls=100).median_s


SMALL = BenchShape(tokens=512, width=128, experts=8, top_k=2, expert_width=64, vocabulary=1024, heads=2, sequence=128)


@on_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("operation", FAMILIES)
def test_every_kernel_that_asks_the_device_nothing_is_timed_in_graphs(operation: str) -> None:
    rows = measure_family(operation, FAMILIES[operation], SMALL, dtype="bf16", device="cuda", repeats=5)
    issued = {row.kernel: (row.forward.issued, row.backward.issued) for row in rows if row.forward and row.backward}
    by_host = {"loop"} if operation == "experts" else set()
    assert issued == {kernel: ("host", "host") if kernel in by_host else ("graph", "graph") for kernel in FAMILIES[operation].kernels}


@on_gpu
@pytest.mark.gpu
def test_optimizers_of_replayed_steps_are_timed_in_graphs() -> None:
    rows = measure_optimizers(SMALL, device="cuda", repeats=5)
    assert {row.kernel: row.forward and row.forward.issued for row in rows} == {"fused": "graph", "for-loop": "host", "split": "graph"}


@on_gpu
@pytest.mark.gpu
def test_a_graph_computes_what_the_calls_compute() -> None:
    x, target = torch.ones(64, device="cuda"), torch.zeros(64, device="cuda")
    replay = timing.recorded(lambda: target.add_(x), 10)
    assert replay is not None
    assert target.max().item() == 1  # the warm-up; a capture computes nothing
    replay()
    assert target.min().item() == target.max().item() == 11


@on_gpu
@pytest.mark.gpu
def test_what_waits_leaves_streams_and_memory_as_they_were() -> None:
    x = torch.ones(64, device="cuda")
    stream = torch.cuda.current_stream()
    weight = torch.nn.Parameter(torch.ones(8, 8, device="cuda"))
    weight.grad = torch.ones_like(weight)
    optimizer = torch.optim.AdamW([weight], foreach=False)
    for stubborn in (lambda: x.sum().item(), x.tolist, optimizer.step):
        assert timed(stubborn, "cuda", 3).issued == "host"
        assert torch.cuda.current_stream() == stream
        assert not torch.cuda.is_current_stream_capturing()
        assert torch.cuda.get_sync_debug_mode() == 0
        torch.cuda.empty_cache()
        assert timed(lambda: x.add_(1.0), "cuda", 3).issued == "graph"


@on_gpu
@pytest.mark.gpu
def test_the_memory_of_a_graph_ends_with_its_timing() -> None:
    x = torch.ones(2**24, device="cuda")
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    assert timed(x.double, "cuda", 3).issued == "graph"
    torch.cuda.empty_cache()
    # A result of 2**27 bytes.
    assert torch.cuda.memory_reserved() < before + 2**26
