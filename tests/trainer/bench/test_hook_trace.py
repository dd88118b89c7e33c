"""Where a traced step of sharded parameters spends its time."""

import pytest

from trainer.bench.hook_trace import Event, devices, hooks


def event(category: str, name: str, begin_us: float, lasts_us: float, thread: int = 1, **args: object) -> Event:
    return {"cat": category, "name": name, "ts": begin_us, "dur": lasts_us, "tid": thread, "args": args}


def test_hooks_count_once_what_lies_inside_them_and_give_back_what_tracing_took() -> None:
    events = [
        event("user_annotation", "ProfilerStep#0", 0, 1000),
        event("user_annotation", "FSDP::pre_forward (block)", 100, 200),
        event("user_annotation", "FSDP::all_gather (block)", 150, 100),
        event("cpu_op", "aten::copy_", 160, 10),
        event("user_annotation", "FSDP::post_backward_reduce (block)", 500, 50, thread=2),
        event("cpu_op", "aten::mm", 700, 20),
    ]
    found = hooks(0.4e-3, events)
    an_event_s = 0.6e-3 / len(events)
    assert found["tracing_s_an_event"] == pytest.approx(an_event_s)
    assert (found["hooks_traced_s"], found["gathers_and_reductions"], found["events_in_hooks"]) == (pytest.approx(250e-6), 2, 4)
    assert found["hooks_s"] == pytest.approx(250e-6 - 4 * an_event_s)


def test_communication_is_exposed_where_no_kernel_runs_beside_it() -> None:
    told = {"Collective name": "_allgather_base", "In msg nelems": 8, "dtype": "BFloat16"}
    events = [
        event("kernel", "ncclDevKernel_AllGather", 0, 100, **told),
        event("kernel", "gemm", 60, 100),
        event("kernel", "gemm", 200, 40),
    ]
    found = devices(events)
    assert (found["communication_s"], found["computation_s"], found["exposed_s"]) == pytest.approx((100e-6, 140e-6, 60e-6))
    assert found["idle_s"] == pytest.approx(40e-6)
    assert found["collectives"]["_allgather_base 8 BFloat16"]["count"] == 1
