"""The collectives of a step on GPUs, from the profiler's records of NCCL's kernels.

Total is the time of a collective's kernels, the waiting for the slowest rank within them included. Exposed is the part beside which no other
kernel runs on this device, whatever held it back: the wait for the collective, or a host that issues too slowly.
"""

import time
from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass, field

from simulator.components import Component, Phase
from trainer.measure.communication import Call, Communication, Key, Recorder, Sums, key_of, recording, report_rows, waits
from trainer.measure.profile import Place, Profile, profile_steps
from trainer.measure.spans import length, outside, union
from trainer.measure.subject import Subject


@dataclass
class _Recorder(Recorder):
    """Keeps where the host waited for a collective, besides the collectives."""

    waited_at: list[tuple[int, Place]] = field(default_factory=list)

    def waited(self, call: Call, seconds: float) -> None:
        """Note a call or a wait; its seconds are the host's, which goes on before the device does."""
        self.waited_at.append((time.time_ns(), (self.phase, self.component)))


@dataclass
class CallTime:
    """Device seconds of one call: all its kernels, and what of them lies beside no other work."""

    total_s: float = 0.0
    exposed_s: float = 0.0


def measure_device_communication(subject: Subject) -> tuple[Communication, Profile]:
    """Profile some steps; means over them. A collective call itself: every rank does it."""
    parallel = subject.parallel
    recorder = _Recorder(at_once=False)
    profile = profile_steps(subject, around=recording(recorder), observe=recorder.observe)
    times = call_times(profile, recorder.calls)
    found: dict[Key, Sums] = defaultdict(Sums)
    # A call may have no kernel of its own: of no rows, or copied by the host's engines.
    for call, taken, wait_s in zip(recorder.calls, times, waits(parallel.world, recorder.calls, [taken.total_s for taken in times]), strict=True):
        found[key_of(parallel, call)].add(call, total_s=taken.total_s, exposed_s=taken.exposed_s, waiting_s=min(wait_s, taken.exposed_s))
    exposed_s = {place: seconds / profile.steps for place, seconds in exposed_by_place(profile, recorder.waited_at).items()}
    return Communication(report_rows(found, profile.steps), exposed_s, {}), profile


def call_times(profile: Profile, calls: list[Call]) -> list[CallTime]:
    """Time of each call, which launched the kernels that follow it on the host. Exposed time of kernels side by side counts for the first."""
    begins_s = [profile.seconds(call.called_ns) for call in calls]
    times = [CallTime() for _ in calls]
    busy = union(kernel.span for kernel in profile.kernels if not kernel.communicates)
    told_until_s = 0.0
    for kernel in profile.kernels:
        index = bisect_right(begins_s, kernel.launched_s) - 1
        if not kernel.communicates or index < 0:
            continue
        times[index].total_s += kernel.span[1] - kernel.span[0]
        # Kernels come by their beginnings: what is told already ends where the latest of them ended.
        untold = (max(kernel.span[0], told_until_s), kernel.span[1])
        times[index].exposed_s += length(outside([untold], busy)) if untold[0] < untold[1] else 0.0
        told_until_s = max(told_until_s, kernel.span[1])
    return times


def exposed_by_place(profile: Profile, waited_at: list[tuple[int, Place]]) -> dict[tuple[Phase, Component], float]:
    """Exposed seconds by what the host was at when it last waited before it launched the next computation."""
    computing = [kernel for kernel in profile.kernels if not kernel.communicates]
    busy = union(kernel.span for kernel in computing)
    talking = union(kernel.span for kernel in profile.kernels if kernel.communicates)
    begins_s = [kernel.span[0] for kernel in computing]
    waits_s = [profile.seconds(ns) for ns, _ in waited_at]
    found: dict[Place, float] = defaultdict(float)
    for begin, end in outside(talking, busy):
        following = bisect_right(begins_s, begin)
        before_s = computing[following - 1].launched_s if following else 0.0
        after_s = computing[following].launched_s if following < len(computing) else float("inf")
        place = _last_between(waits_s, before_s, after_s)
        where = waited_at[place][1] if place is not None else profile.place(after_s)
        if where is not None:
            found[where] += end - begin
    return dict(found)


def _last_between(moments_s: list[float], begin_s: float, end_s: float) -> int | None:
    index = bisect_right(moments_s, end_s) - 1
    return index if index >= 0 and moments_s[index] >= begin_s else None
