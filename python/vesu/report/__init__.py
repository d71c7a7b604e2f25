"""One self-contained HTML page about a run: the outcome first, then pictures, search, time and evidence."""

from pathlib import Path

from vesu.data.storage import write_bytes_atomic
from vesu.errors import ArgumentError
from vesu.report import plots
from vesu.report.extras import MissingExtraError

__all__ = ["MissingExtraError", "plots", "write_report"]


def write_report(run_folder: str | Path, out: str | Path | None = None) -> Path:
    """Write the HTML report of a run folder.

    Parameters
    ----------
    run_folder : str or pathlib.Path
        A folder that ``vesu run`` wrote. Every file in it is optional: what is missing is shown as "not recorded".
    out : str or pathlib.Path, optional
        File to write; ``run_folder/report.html`` if not given. Replaced whole or not at all.

    Returns
    -------
    pathlib.Path
        The file written: below 10 MB, with its style and pictures inside; it needs no network and no script.

    Raises
    ------
    DataError
        ``run_folder`` is not a folder, or holds nothing of a run.
    FormatError
        A file in it is malformed; the message names it.
    FileError
        The operating system refused to read or write a file.
    MissingExtraError
        matplotlib or Jinja2 is not installed: ``pip install vesu[report]``. Also an ``ImportError``.

    Notes
    -----
    Requirements R13, R30, R34, R41, R44. The same folder gives the same page, byte for byte. The ledger and the digest
    of the submission are verified anew while the report is written, so what the page says of them is seen, not copied.
    Of more than 12 volumes, 12 are pictured in full, evenly from the sparsest mask to the densest, and all of them (up
    to 240) on a contact sheet; pictures are reduced where they would not fit. See docs/report.md.

    Examples
    --------
    >>> import json, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     summary = {"run_id": "demo", "status": "finished", "elapsed_s": 12.5}
    ...     _ = Path(folder, "summary.json").write_text(json.dumps(summary))
    ...     page = write_report(folder).read_text(encoding="utf-8")
    >>> "12.5\\N{NO-BREAK SPACE}s" in page, "<script" in page
    (True, False)
    """
    from vesu.report.html import render
    from vesu.report.loader import load_run

    if not isinstance(run_folder, str | Path) or not isinstance(out, str | Path | None):
        raise ArgumentError(f"run_folder, out: got {run_folder!r}, {out!r}; accepted: str or pathlib.Path")
    folder = Path(run_folder)
    target = folder / "report.html" if out is None else Path(out)
    page = render(load_run(folder))
    write_bytes_atomic(target, page.encode("utf-8", "replace"))
    return target
