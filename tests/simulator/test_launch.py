"""Claims about replaying a step as one CUDA graph."""

import pytest

from configuration.errors import ConfigurationError
from simulator.question import ask
from simulator.records.step_report import StepReport

H100 = "h100-sxm-80gb"


def answer(launch: str, **device: float) -> StepReport:
    settings = {"plan": {"implementation.launch": launch}, "device": {f"{name}.value": value for name, value in device.items()}}
    return ask("tiny-moe", "spine-leaf", device=H100, gpus=1, settings=settings).answer()


def test_in_a_graph_the_host_issues_one_launch_a_step() -> None:
    eager, graph = answer("eager"), answer("graph", host_overhead_s=1e-3)
    busy = graph.time.forward_s + graph.time.backward_s + graph.time.optimizer_s
    assert graph.time.step_s == pytest.approx(1e-3 + busy)
    assert busy == pytest.approx(eager.time.forward_s + eager.time.backward_s + eager.time.optimizer_s)
    assert graph.time.step_s < eager.time.step_s


def test_without_a_constant_of_its_own_a_launch_in_a_graph_is_said_to_be_assumed() -> None:
    notes = answer("graph").provenance.notes
    assert any("graph_launch_overhead_s: assumed" in note for note in notes)
    assert not any("graph_launch_overhead_s" in note for note in answer("eager").provenance.notes)


def test_a_shorter_launch_in_graphs_shortens_every_kernel_by_the_difference() -> None:
    plain = ask("tiny-moe", "spine-leaf", device=H100, gpus=1, settings={"plan": {"implementation.launch": "graph"}})
    issued_alone_s = plain.device.launch_overhead_s.value
    overhead = {"value": issued_alone_s - 1e-6, "origin": "assumed", "reference": "one microsecond less than issued alone"}
    device = plain.device.model_copy(update={"graph_launch_overhead_s": type(plain.device.launch_overhead_s)(**overhead)})
    shorter = type(plain)(plain.model, plain.plan, device, plain.network, []).answer()
    before, after = plain.answer().time, shorter.time
    # Calls over lists launch a kernel for each of their parameters: those count as often.
    launches = sum(row.operations for row in after.rows)
    assert before.step_s - after.step_s == pytest.approx(launches * 1e-6, rel=1e-6)


def test_a_device_that_runs_kernels_where_they_are_issued_has_no_graphs() -> None:
    with pytest.raises(ConfigurationError, match=r"implementation.launch graph: cpu .* \(legal: eager\)"):
        ask("tiny-moe", "spine-leaf", device="cpu", gpus=1, settings={"plan": {"implementation.launch": "graph", "precision": "bf16-mixed"}}).answer()
