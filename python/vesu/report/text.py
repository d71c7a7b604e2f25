"""Values as words for the page: what is None reads "not recorded", never a made-up figure."""

from datetime import UTC, datetime
from typing import Any

ABSENT = "not recorded"
LABELS = {
    "cpu": "CPU",
    "isa": "Instruction set",
    "memory_gib": "Memory (GiB)",
    "numpy": "NumPy",
    "f1": "F1",
    "iou": "IoU",
    "f_beta": "F-beta 0.5",
    "max_iter": "Iterations",
    "lipschitz": "Lipschitz constant",
    "dtypes": "Sample types",
    "nx46": "NX46",
    "nx46_fused": "NX46 fused",
}


def decimal(value: float | None, digits: int = 3) -> str:
    """A number with a fixed count of decimals."""
    return ABSENT if value is None else f"{value:.{digits}f}"


def cell(value: float | None, digits: int = 3) -> str:
    """As :func:`decimal`, for a crowded table: a dash where nothing is recorded."""
    return "–" if value is None else f"{value:.{digits}f}"


def whole(value: int | float | None) -> str:
    """A whole number with thin spaces between thousands."""
    return ABSENT if value is None else f"{value:,.0f}".replace(",", "\u202f")


def counted(value: int | None) -> str:
    """As :func:`whole`, for a crowded table: a dash where nothing is recorded."""
    return "–" if value is None else whole(value)


def percent(value: float | None, digits: int = 2) -> str:
    """A share as a percentage."""
    return ABSENT if value is None else f"{100 * value:.{digits}f}\u202f%"


def power(value: float | None) -> str:
    """A hyper-parameter in short scientific form: 3e-4."""
    if value is None:
        return "–"
    return "0" if value == 0 else f"{value:.2g}" if 0.1 <= abs(value) < 1000 else f"{value:.0e}".replace("e-0", "e-")


def duration(seconds: float | None) -> str:
    """Seconds as a person says them."""
    if seconds is None:
        return ABSENT
    if seconds < 60:
        return f"{seconds:.1f}\u00a0s" if seconds >= 1 else f"{1000 * seconds:.0f}\u00a0ms"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}\u00a0h {minutes:02d}\u00a0min" if hours else f"{minutes}\u00a0min {rest:02d}\u00a0s"


def size(n_bytes: int | float | None) -> str:
    """Bytes in binary units."""
    if n_bytes is None:
        return ABSENT
    value = float(n_bytes)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def shape(sizes: tuple[int, ...]) -> str:
    """A shape, z first."""
    return " × ".join(map(str, sizes)) if sizes else ABSENT


def instant(ns: int | None) -> str:
    """Nanoseconds since 1970 as a UTC date and time."""
    if ns is None:
        return ABSENT
    try:
        return datetime.fromtimestamp(ns / 1e9, tz=UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{ns} ns"


def plain(value: Any) -> str:
    """Any recorded value of an open-ended table."""
    if value is None:
        return ABSENT
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int) and abs(value) >= 10_000:
        return whole(value)
    return str(value)


def title(name: str) -> str:
    """A field name as a label: ``all_background`` reads "All background"."""
    if name in LABELS:
        return LABELS[name]
    words = name.replace("_", " ").strip()
    return words[:1].upper() + words[1:]


# What could hide a character, or turn the text after it around, is written out.
_HIDDEN = {
    code: f"\\u{code:04x}"
    for code in (
        *(code for code in range(0x20) if chr(code) not in "\t\n"), *range(0x7F, 0xA0), 0x061C, 0x200B, 0x200E, 0x200F,
        *range(0x2028, 0x202F), *range(0x2066, 0x206A), 0xFEFF, *range(0xD800, 0xE000),
    )
}  # fmt: skip


def visible(words: str, most: int) -> str:
    """Any text as it may stand on the page: control characters written out, and no more than so many characters.

    Examples
    --------
    >>> visible("a\\x00b" + 9 * "c", 4)
    'a\\\\u0000bc … cut here, the file holds the rest'
    """
    cut = words if len(words) <= most else f"{words[:most]} … cut here, the file holds the rest"
    return cut.translate(_HIDDEN)


_ALL = (decimal, cell, whole, counted, percent, power, duration, size, shape, instant, plain, title)
FILTERS = {each.__name__: each for each in _ALL}
