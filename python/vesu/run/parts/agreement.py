"""Do parts belong together: every part of one work, once.

Each part was found to hold exactly what falls to it, so all of them together hold every volume, once.
"""

import dataclasses
from collections.abc import Sequence

from vesu.errors import DataError
from vesu.run.parts.plan import differences
from vesu.run.parts.record import PartReport

__all__ = ["agreed"]


def agreed(reports: Sequence[PartReport]) -> tuple[PartReport, ...]:
    """The parts by their number, if they are all parts of one work.

    Raises
    ------
    DataError
        They are not; the message names folders, parts and fields.
    """
    first = reports[0]
    for other in reports[1:]:
        found = differences(first.plan, other.plan, [str(first.folder), str(other.folder)])
        if found:
            raise DataError(f"parts: got parts of different works: {'; '.join(found)}")
    _refuse_doubled(reports)
    _refuse_missing(reports)
    return tuple(sorted(reports, key=lambda report: report.plan.part_id))


def _refuse_doubled(reports: Sequence[PartReport]) -> None:
    folders: dict[int, list[str]] = {}
    for report in reports:
        folders.setdefault(report.plan.part_id, []).append(str(report.folder))
    doubled = [f"part {number} in {' and '.join(names)}" for number, names in sorted(folders.items()) if names[1:]]
    if doubled:
        raise DataError(f"parts: got {'; '.join(doubled)}; accepted: each part once")


def _refuse_missing(reports: Sequence[PartReport]) -> None:
    plan = reports[0].plan
    missing = sorted(set(range(plan.num_parts)) - {report.plan.part_id for report in reports})
    if missing:
        names = sorted(name for number in missing for name in dataclasses.replace(plan, part_id=number).assigned)
        holding = f", to which {_some(names)} fall" if names else ""
        numbers = ", ".join(map(str, missing))
        raise DataError(f"parts: missing part {numbers} of {plan.num_parts}{holding}; accepted: all parts")


def _some(names: Sequence[str]) -> str:
    return f"{', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"
