"""What a user does in a session without a network, from the install to the checked zip; each step says what it saw.

Run inside the namespace by the fresh environment's own interpreter: ``python -I session.py plan.json``. Needs the
standard library only, and takes nothing from this checkout: vesu comes from the wheelhouse. The exit status is 0 where
every step held; what each saw goes to the plan's `result` file in any case.
"""

import errno
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

Facts = dict[str, Any]

OUTSIDE = (("203.0.113.1", socket.AF_INET), ("1.1.1.1", socket.AF_INET), ("2606:4700:4700::1111", socket.AF_INET6))
"""An address of the documentation range and two that answer from almost anywhere."""

_UNREACHABLE = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


class Session:
    """The plan and the steps; each public step returns what it saw, or raises."""

    def __init__(self, plan: Facts) -> None:
        self.plan = plan
        self.wheelhouse = Path(plan["wheelhouse"])
        self.out = Path(plan["out"])
        self.site = Path(sysconfig.get_paths()["platlib"])

    def network_is_gone(self) -> Facts:
        """Only loopback, which works, in another namespace than the caller's; nothing beyond it can be reached."""
        names = [name for _, name in socket.if_nameindex()]
        assert names == ["lo"], f"interfaces: {names}"
        namespace = Path("/proc/self/ns/net").readlink().name
        assert namespace != self.plan["outer_namespace"], f"still in the machine's network namespace {namespace}"
        with socket.create_server(("127.0.0.1", 0)) as server:  # sockets as such work: what is gone is the network
            socket.create_connection(server.getsockname(), timeout=5).close()
        answers = {}
        for address, family in OUTSIDE:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                answers[f"{address} {kind.name}"] = _reach(address, family, kind)
        return {"interfaces": names, "answers": answers}

    def install(self) -> Facts:
        """vesu, and nothing else, from the wheelhouse; what was there keeps its version."""
        before = self._packages()
        assert "vesu" not in before, "the environment is not fresh: vesu is there already"
        assert "imagecodecs" not in before, "the environment is not fresh: imagecodecs is there already"
        self._call(sys.executable, "-m", "pip", "install", "--no-index", "--find-links", self.wheelhouse, "vesu")
        after = self._packages()
        added = {name: version for name, version in after.items() if before.get(name) != version}
        assert set(added) == {"vesu"} and set(before) < set(after), f"changed by the install: {added}"
        return {"vesu": added["vesu"], "beside": before, "installed_bytes": self._installed_bytes()}

    def import_vesu(self) -> Facts:
        """The package and its core come from site-packages, and the core is the very file of the wheel."""
        program = (
            "import json, time; start = time.perf_counter(); import vesu; seconds = time.perf_counter() - start;"
            "print(json.dumps([vesu.__file__, vesu._core.__file__, vesu.__version__, vesu._core.simd_path(), seconds]))"
        )
        package, core, version, isa, seconds = json.loads(self._call(sys.executable, "-I", "-c", program))
        for file in (package, core):
            assert Path(file).resolve().is_relative_to(self.site.resolve()), f"{file} is not in {self.site}"
        wheel, packed = self._core_in_wheel(Path(core).name)
        assert hashlib.sha256(Path(core).read_bytes()).digest() == packed, f"{core} is not the file of {wheel.name}"
        return {"version": version, "isa": isa, "import_s": seconds, "wheel": wheel.name} | {
            "wheel_bytes": wheel.stat().st_size,
            "core_bytes": Path(core).stat().st_size,
        }

    def check_wheels(self) -> Facts:
        """`vesu wheels check` and pip agree that all of the wheelhouse would install here."""
        said = self._vesu("wheels", "check", self.wheelhouse)
        manifest = json.loads((self.wheelhouse / "MANIFEST.json").read_bytes())
        names = sorted({entry["name"] for entry in manifest["wheels"]})
        words = ("install", "--dry-run", "--no-deps", "--no-index", "--find-links", self.wheelhouse)
        self._call(sys.executable, "-m", "pip", *words, *names)
        return {"names": names, "said": said.splitlines()}

    def run_pipeline(self) -> Facts:
        """The mini pipeline: fewer and smaller volumes, the whole grid (R50)."""
        seconds, said = self._run(self.plan["data"], self.out)
        grid = self.plan["grid"]
        assert grid in said, f"the run did not say {grid!r}:\n{said}"
        return {"run_s": seconds, "said": said.splitlines(), "report": (self.out / "report.html").exists()}

    def check_zip(self) -> Facts:
        """`vesu check-submission` takes the zip."""
        zipped = self.out / "submission.zip"
        said = self._vesu("check-submission", zipped, "--test-images", Path(self.plan["test_images"]))
        return {"said": said.splitlines(), "zip_bytes": zipped.stat().st_size}

    def verify_log(self) -> Facts:
        """`vesu ledger verify` finds the event log intact."""
        return {"said": self._vesu("ledger", "verify", self.out / "events.jsonl").splitlines()}

    def hash_results(self) -> Facts:
        """SHA-256 of the final masks and of the model's weights: to be the same on every interpreter."""
        return {"sha256": _hashes(self.out)}

    def meet_a_compression(self) -> Facts:
        """Volumes packed with Zstandard: the run gets imagecodecs from the wheelhouse by itself, and the same masks."""
        assert "imagecodecs" not in self._packages(), "imagecodecs came before it was needed"
        out = self.out.with_name(self.out.name + "-packed")
        seconds, _ = self._run(self.plan["packed"], out)
        log = [json.loads(line) for line in (out / "events.jsonl").read_text(encoding="utf-8").splitlines()]
        events = [record for record in log if str(record.get("event", "")).startswith("OFFLINE_")]
        installed = [record for record in events if record["event"] == "OFFLINE_INSTALL" and record["ok"]]
        assert [record["package"] for record in installed] == ["imagecodecs"], f"installed: {installed}"
        masks, packed = _hashes(self.out), _hashes(out)
        assert masks == packed, f"other results from packed volumes: {masks} and {packed}"
        self._vesu("ledger", "verify", out / "events.jsonl")
        resolved = next(record for record in reversed(events) if record["event"] == "OFFLINE_RESOLVED")
        assert Path(resolved["wheel"]).parent == self.wheelhouse, f"installed from elsewhere: {resolved['wheel']}"
        return {"run_s": seconds, "imagecodecs": resolved["version"], "events": events}

    def _run(self, data: str | None, out: Path) -> tuple[float, str]:
        settings = [word for setting in self.plan["settings"] for word in ("--set", setting)]
        start = time.monotonic()
        said = self._vesu("run", *([data] if data else []), "--out", out, "--quiet", *settings)
        return time.monotonic() - start, said

    def _vesu(self, *words: str | Path) -> str:
        """The console script that the install put beside the interpreter."""
        return self._call(Path(sys.executable).with_name("vesu"), *words)

    def _packages(self) -> dict[str, str]:
        listed = json.loads(self._call(sys.executable, "-m", "pip", "list", "--format", "json"))
        return {entry["name"].lower(): entry["version"] for entry in listed}

    def _installed_bytes(self) -> int:
        folders = (self.site / "vesu", *self.site.glob("vesu-*.dist-info"))
        return sum(file.stat().st_size for folder in folders for file in folder.rglob("*") if file.is_file())

    def _core_in_wheel(self, name: str) -> tuple[Path, bytes]:
        """The wheel that pip took (of this machine's architecture) and the SHA-256 of the core in it."""
        for wheel in sorted(self.wheelhouse.glob("vesu-*.whl")):
            if os.uname().machine in wheel.name:
                with zipfile.ZipFile(wheel) as archive:
                    return wheel, hashlib.sha256(archive.read(f"vesu/{name}")).digest()
        raise AssertionError(f"{self.wheelhouse} holds no vesu wheel for {os.uname().machine}")

    def _call(self, *words: str | Path) -> str:
        answer = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
        said = answer.stderr.strip() or answer.stdout.strip()
        assert answer.returncode == 0, f"{' '.join(map(str, words))}: exit code {answer.returncode}\n{said}"
        return answer.stdout


STEPS: dict[str, Callable[[Session], Facts]] = {
    step.__name__: step
    for step in (
        Session.network_is_gone,
        Session.install,
        Session.import_vesu,
        Session.check_wheels,
        Session.run_pipeline,
        Session.check_zip,
        Session.verify_log,
        Session.hash_results,
        Session.meet_a_compression,
    )
}


def perform(plan: Facts) -> Facts:
    """The plan's steps in order, up to the first that fails."""
    session, result = Session(plan), {"python": sys.version.split()[0], "steps": {}, "failed": None}
    for name in plan["steps"]:
        start = time.monotonic()
        try:
            facts = STEPS[name](session)
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is the result of this step
            result["failed"] = {"step": name, "error": f"{type(error).__name__}: {error}"}
            break
        result["steps"][name] = {"seconds": time.monotonic() - start} | facts
    return result


def _reach(address: str, family: int, kind: int) -> str:
    """How the network refuses; raises AssertionError where it does not."""
    with socket.socket(family, kind) as one:
        one.settimeout(5)
        try:
            one.connect((address, 53))
        except OSError as error:
            assert error.errno in _UNREACHABLE, f"{address}: {error!r} is not the answer of a machine without a network"
            return os.strerror(error.errno or 0)
    raise AssertionError(f"{address} can be reached: there is a network")


def _hashes(run: Path) -> dict[str, str]:
    files = [*sorted((run / "masks").glob("*.tif")), run / "model.npz"]
    assert len(files) > 1, f"{run} holds no masks"
    return {str(file.relative_to(run)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def main() -> int:
    plan = json.loads(Path(sys.argv[1]).read_bytes())
    shutil.rmtree(plan["out"], ignore_errors=True)
    result = perform(plan)
    Path(plan["result"]).write_text(json.dumps(result, indent=2), encoding="utf-8")
    return 1 if result["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
