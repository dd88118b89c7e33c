"""Point to point: the first rank of the group sends to the second; bytes = the message."""

from configuration.errors import ConfigurationError
from fabrics.collectives.schedule import Group, Schedule, phase


def send(group: Group) -> Schedule:
    """One message. Raises ConfigurationError unless the group has two ranks."""
    if group.size != 2:
        raise ConfigurationError(f"point-to-point: a group is a sender and a receiver, got {group.size} ranks")
    return [phase([(int(group.ranks[0]), int(group.ranks[1]))], 1.0)]
