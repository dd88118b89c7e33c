"""Sizes as they are written on the command line."""

from configuration.errors import ConfigurationError

DEFAULT_BYTES = tuple(float(4**k) for k in range(5, 16))
"""1 KiB to 1 GiB."""


def sizes(bytes_: str | None, bytes_per_pair: float | None, op: str) -> list[float]:
    """Sizes from ``--bytes 1e6,1e9`` or ``--bytes-per-pair``; 1 KiB to 1 GiB when neither is given. Raises ConfigurationError."""
    if bytes_per_pair is not None:
        if bytes_ is not None:
            raise ConfigurationError("--bytes and --bytes-per-pair: give one of them")
        if op != "all-to-all":
            raise ConfigurationError(f"--bytes-per-pair is for all-to-all; {op} takes --bytes")
        return [bytes_per_pair]
    if bytes_ is None:
        return list(DEFAULT_BYTES)
    try:
        values = [float(part) for part in bytes_.split(",")]
    except ValueError:
        raise ConfigurationError(f"--bytes {bytes_}: expected a number of bytes, or several with commas") from None
    if not all(0 <= value < float("inf") for value in values):
        raise ConfigurationError(f"--bytes {bytes_}: sizes must be finite and not negative")
    return values
