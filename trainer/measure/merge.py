"""One report out of those of all ranks."""

from simulator.components import Component, Phase
from simulator.records.step_report import RankReport, StepReport, Time
from trainer.measure.communication import Communication
from trainer.parallel.together import gathered
from trainer.parallel.world import World


def apart(time: Time, communication: Communication) -> Time:
    """The time of a step with the waiting for collectives taken out of its phases and rows."""
    rows = []
    taken: dict[Phase, float] = dict.fromkeys(Phase, 0.0)
    for row in time.rows:
        waiting_s = min(row.time_s, communication.exposed_s.get((row.phase, row.component), 0.0))
        taken[row.phase] += waiting_s
        rows.append(row.model_copy(update={"time_s": row.time_s - waiting_s}))
    outside_s = sum(seconds for (_, component), seconds in communication.exposed_s.items() if component is Component.INPUTS)
    outside_s = min(time.other_s, outside_s)
    return time.model_copy(
        update={
            "rows": rows,
            "forward_s": max(0.0, time.forward_s - taken[Phase.FORWARD]),
            "backward_s": max(0.0, time.backward_s - taken[Phase.BACKWARD]),
            "optimizer_s": max(0.0, time.optimizer_s - taken[Phase.OPTIMIZER]),
            "other_s": time.other_s - outside_s,
            "exposed_communication_s": sum(taken.values()) + outside_s,
            "communication_s": sum(row.time_s for row in communication.rows),
        }
    )


def merged(report: StepReport, world: World) -> StepReport:
    """The report of the job, on every rank: memory of the rank with the highest peak, time of the slowest, and both of all of them."""
    mine = RankReport(rank=world.rank, memory=report.memory, time=report.time, communication=report.communication)
    ranks = [RankReport.model_validate_json(text) for text in gathered(world, mine.model_dump_json())]
    slowest = max(ranks, key=lambda rank: rank.time.step_s)
    fullest = max(ranks, key=lambda rank: rank.memory.peak_allocated_bytes)
    throughput = report.throughput.model_copy(update={"tokens_per_s": world.plan.tokens_per_step / slowest.time.step_s})
    return report.model_copy(
        update={"memory": fullest.memory, "time": slowest.time, "communication": slowest.communication, "throughput": throughput, "ranks": ranks}
    )
