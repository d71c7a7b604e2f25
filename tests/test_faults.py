"""The fault campaign's short form: nothing acknowledged is lost, no damage goes unseen, every mutant is caught."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CAMPAIGN = Path(__file__).with_name("faults") / "campaign.py"
pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="LD_PRELOAD is Linux's"),
    pytest.mark.skipif(shutil.which(os.environ.get("CC", "cc")) is None, reason="the shim needs a C compiler"),
]


@pytest.fixture(scope="module", name="figures")
def figures_fixture(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the campaign wrote; a promise that broke is told by the tests."""
    out = tmp_path_factory.mktemp("faults") / "figures.json"
    command = [sys.executable, str(CAMPAIGN), "--short", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert out.exists(), done.stdout + done.stderr
    return json.loads(out.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("figure", "at_least"),
    [("kills", 150), ("refusals", 300), ("power cuts", 600), ("damage", 9000), ("mutants", 17)],
)
def test_every_promise_holds(figures: dict[str, Any], figure: str, at_least: int) -> None:  # R36 R37 R38
    assert figures[figure]["wrong"] == []
    assert figures[figure]["total"] >= at_least, "the campaign has become empty"


def test_every_kind_of_call_and_error_was_tried(figures: dict[str, Any]) -> None:  # R36 R37 R38
    calls = {kind.split()[2] for kind in figures["kills"]["cases"]}
    assert calls >= {"write", "sync", "rename", "mkdir", "unlink", "rmdir", "open", "truncate"}
    errors = {"EIO", "ENOSPC", "EDQUOT", "EMFILE", "EINTR", "short"}
    tried = set(figures["refusals"]["cases"])
    assert tried == {f"{error} {when}" for error in errors for when in ("once", "from then on")}


def test_each_workload_was_cut_everywhere(figures: dict[str, Any]) -> None:  # R36 R38
    workloads = {"first save", "rotation", "log append", "log recovery", "zip"}
    assert figures["kills"]["of"].keys() == workloads
    assert workloads <= figures["refusals"]["of"].keys()
    assert workloads <= figures["power cuts"]["of"].keys()


def test_the_campaign_fails_where_a_promise_breaks(figures: dict[str, Any]) -> None:
    """Each mutant was caught by a promise that it broke, not by a program that did not run."""
    caught = figures["mutants"]["by"]
    assert len(caught) == figures["mutants"]["of"]["caught"] >= 12
    assert all(caught.values())
    assert figures["fsyncs removed"]["of"]["caught"] >= 4  # each of the log's
