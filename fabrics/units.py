"""Numbers for people: seconds, bytes and rates with a fitting prefix."""


def seconds(value: float) -> str:
    """ "12.3 µs"."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size:
            return f"{value / size:.4g} {unit}"
    return f"{value / 1e-9:.4g} ns" if value else "0 s"


def bytes_text(value: float) -> str:
    """ "16 MB" (1 MB = 1e6 bytes)."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= size:
            return f"{value / size:.4g} {unit}"
    return f"{value:.4g} B"


def rate(value: float) -> str:
    """ "50 GB/s" (1 GB = 1e9 bytes)."""
    return f"{bytes_text(value)}/s"
