"""What the ranks of a job decide together, and how a rank tells that another is gone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from configuration.command import CheckMissedError
from configuration.errors import ConfigurationError
from trainer.parallel.world import World

T = TypeVar("T")

SIGNS_OF_LOSS = ("gloo", "nccl", "connection", "timed out", "timeout", "socket", "tcpstore", "store->get", "broken pipe")
"""Words in the messages of a collective that failed because a rank ended, hangs or cannot be reached."""


class RankLostError(CheckMissedError):
    """A collective failed or took longer than its timeout."""


def first_rank_decides(world: World, decide: Callable[[], T]) -> T:
    """What ``decide`` gives on the first rank, on all ranks; its ConfigurationError is raised on all of them too."""
    if world.plan.ranks == 1:
        return decide()
    import torch.distributed as dist

    told: list[tuple[T | None, str | None]] = [(None, None)]
    if world.first:
        try:
            told = [(decide(), None)]
        except ConfigurationError as error:
            told = [(None, str(error))]
    dist.broadcast_object_list(told, src=0)
    result, fault = told[0]
    if fault is not None:
        raise ConfigurationError(fault)
    return result  # type: ignore[return-value]


def first_rank_first(world: World, work: Callable[[], T]) -> T:
    """``work`` on every rank, on the first one before all others, which find in caches what it left there."""
    mine: list[T] = []
    first_rank_decides(world, lambda: mine.append(work()))
    return mine[0] if mine else work()


def anywhere(world: World, flag: bool) -> bool:
    """Whether ``flag`` is set on some rank."""
    if world.plan.ranks == 1:
        return flag
    import torch
    import torch.distributed as dist

    total = torch.tensor(int(flag), device=world.device)
    dist.all_reduce(total)
    return bool(total)


def gathered(world: World, mine: T) -> list[T]:
    """Plain content of every rank, in order of rank, on every rank."""
    if world.plan.ranks == 1:
        return [mine]
    import torch.distributed as dist

    found: list[T | None] = [None] * world.plan.ranks
    dist.all_gather_object(found, mine)
    return found  # type: ignore[return-value]


@contextmanager
def loss_of_a_rank_told(world: World) -> Iterator[None]:
    """Within, a collective that fails because of another rank raises RankLostError, in one line."""
    try:
        yield
    except RuntimeError as error:
        message = " ".join(str(error).split())
        if world.plan.ranks == 1 or not any(sign in message.lower() for sign in SIGNS_OF_LOSS):
            raise
        raise RankLostError(f"rank {world.rank}: another of the {world.plan.ranks} ranks ended or did not answer in time ({message[:200]})") from None
