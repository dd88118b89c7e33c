"""The allocator's own account of a step, as a check of the storage tracker."""

from trainer.measure.subject import Subject

TOLERANCE = 1e-4


def allocator_peak_bytes(subject: Subject, before_bytes: int) -> int:
    """Most bytes that the CPU allocator had given out during one step, above ``before_bytes`` that it had given out before.

    From the profiler's memory events, without any tracker: also what operations allocate and free inside themselves.
    """
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        subject.step()
    assert profiler.profiler is not None
    results = profiler.profiler.kineto_results
    assert results is not None
    events = sorted((event for event in results.events() if event.name() == "[memory]"), key=lambda event: event.start_ns())
    live_bytes = peak_bytes = before_bytes
    for event in events:
        live_bytes += event.nbytes()
        peak_bytes = max(peak_bytes, live_bytes)
    if not events:
        raise RuntimeError("the profiler recorded no memory event: the allocator cannot be checked")
    return peak_bytes


def agrees(tracked_bytes: int, allocator_bytes: int) -> bool:
    """Whether both peaks are equal within ``TOLERANCE``."""
    return abs(tracked_bytes - allocator_bytes) <= TOLERANCE * allocator_bytes
