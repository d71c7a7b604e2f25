"""Every error that vesu raises on purpose.

Each is a :class:`VesuError`, and also the built-in error that fits, so that ``except ValueError`` works as
a user expects. The Rust core's errors arrive here too: the binding looks these classes up by name.
"""


class VesuError(Exception):
    """Base of all vesu errors; the command line prints it without a traceback and exits with code 2."""


class ArgumentError(VesuError, ValueError):
    """An argument that the caller can mend: the message names it, what came and what is accepted."""


class FormatError(VesuError, ValueError):
    """A file or byte string that is malformed, truncated, hostile or of an unsupported kind."""


class FileError(VesuError, OSError):
    """The operating system refused a file operation; ``errno`` and ``filename`` are set where known."""


class MemoryLimitError(VesuError, MemoryError):
    """Refused before allocating: the message carries the bytes needed and the limit."""


class EvidenceError(VesuError, ValueError):
    """A log whose records do not hold together (the message names the record), or a proof that fails."""


class DataError(VesuError, ValueError):
    """A data set that cannot be used: nothing found, orphans, shapes that differ, forbidden label values."""


class PreflightError(DataError):
    """Preflight found something that blocks the run; the message lists each finding."""


class SubmissionError(VesuError, ValueError):
    """A submission that the competition would reject; the message names the member and the reason."""


class ResumeIncompatible(VesuError, ValueError):
    """A checkpoint of another run than this one would be; the message names each field with its old and new value."""


class DistillationNotExecuted(VesuError, RuntimeError):
    """A distillation that was asked for or due, and that the log does not prove; the message says what is missing."""


class InternalError(VesuError, RuntimeError):
    """A bug in vesu itself (a caught panic). Please report it with the message."""


MISPLACED = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)
"""What may be raised where values are taken out of JSON that is not what it should be: ``int(1e999)`` overflows, and
what is nested too deeply ends in a recursion."""


__all__ = [
    "ArgumentError",
    "DataError",
    "DistillationNotExecuted",
    "EvidenceError",
    "FileError",
    "FormatError",
    "InternalError",
    "MemoryLimitError",
    "PreflightError",
    "ResumeIncompatible",
    "SubmissionError",
    "VesuError",
]
