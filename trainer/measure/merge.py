"""One report out of those of all ranks."""

from simulator.components import Phase
from simulator.records.step_report import RankReport, StepReport, Time
from trainer.measure.communication import Communication, Waits
from trainer.measure.time import OUTSIDE
from trainer.parallel.together import gathered
from trainer.parallel.world import World


def apart(time: Time, communication: Communication) -> Time:
    """The time of a step with the waiting for collectives, and for other stages, taken out of its phases and rows."""
    rows, exposed_s, bubble_s = [], 0.0, 0.0
    taken: dict[Phase, float] = dict.fromkeys(Phase, 0.0)
    for row in time.rows:
        own = _taken(row.time_s, *(waits.get((row.phase, row.component), 0.0) for waits in (communication.exposed_s, communication.bubble_s)))
        taken[row.phase] += sum(own)
        exposed_s, bubble_s = exposed_s + own[0], bubble_s + own[1]
        rows.append(row.model_copy(update={"time_s": max(0.0, row.time_s - sum(own))}))
    outside = _taken(time.other_s, *(_outside(waits) for waits in (communication.exposed_s, communication.bubble_s)))
    return time.model_copy(
        update={
            "rows": rows,
            "forward_s": max(0.0, time.forward_s - taken[Phase.FORWARD]),
            "backward_s": max(0.0, time.backward_s - taken[Phase.BACKWARD]),
            "optimizer_s": max(0.0, time.optimizer_s - taken[Phase.OPTIMIZER]),
            "other_s": max(0.0, time.other_s - sum(outside)),
            "exposed_communication_s": exposed_s + outside[0],
            "bubble_s": bubble_s + outside[1],
            "communication_s": sum(row.time_s for row in communication.rows),
        }
    )


def _taken(available_s: float, exposed_s: float, bubble_s: float) -> tuple[float, float]:
    """Both waits, made to fit: medians of some steps and means of others need not."""
    waits_s = exposed_s + bubble_s
    fitting = min(1.0, available_s / waits_s) if waits_s else 0.0
    return fitting * exposed_s, fitting * bubble_s


def _outside(waits: Waits) -> float:
    return sum(seconds for (_, component), seconds in waits.items() if component in OUTSIDE)


def merged(report: StepReport, world: World) -> StepReport:
    """The report of the job, on every rank: memory of the rank with the highest peak, time of the slowest, and both of all of them.

    The slowest is the rank that works longest: all others wait for it, and their steps take as long.
    """
    mine = RankReport(rank=world.rank, memory=report.memory, time=report.time, communication=report.communication)
    ranks = [RankReport.model_validate_json(text) for text in gathered(world, mine.model_dump_json())]
    slowest = max(ranks, key=lambda rank: rank.time.forward_s + rank.time.backward_s + rank.time.optimizer_s)
    fullest = max(ranks, key=lambda rank: rank.memory.peak_allocated_bytes)
    loads = {load.layer: load for part in gathered(world, report.layer_loads) for load in part}
    return report.model_copy(
        update={
            "memory": fullest.memory,
            "time": slowest.time,
            "communication": slowest.communication,
            "throughput": report.throughput.model_copy(update={"tokens_per_s": world.plan.tokens_per_step / slowest.time.step_s}),
            "ranks": ranks,
            "layer_loads": [loads[layer] for layer in sorted(loads)],
        }
    )
