"""Do parts belong together: every part of one work, once, and each volume in one of them."""

import dataclasses
from collections import Counter
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
    _refuse_overlaps_and_gaps(reports)
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


def _refuse_overlaps_and_gaps(reports: Sequence[PartReport]) -> None:
    counts = Counter(record.volume_id for report in reports for record in report.records)
    if twice := sorted(name for name, count in counts.items() if count > 1):
        raise DataError(f"parts: got {_some(twice)} in more than one part; accepted: each volume in one part")
    if gaps := sorted({volume.volume_id for volume in reports[0].plan.volumes} - set(counts)):
        raise DataError(f"parts: got none that holds {_some(gaps)}; accepted: every volume in one part")


def _some(names: Sequence[str]) -> str:
    return f"{', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"
