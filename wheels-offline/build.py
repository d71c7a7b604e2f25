"""Build the wheelhouse: vesu's own wheels, and by the lock what Kaggle's image lacks (R06).

    python wheels-offline/build.py            everything, into this folder
    python wheels-offline/build.py --twice    and vesu once more in another folder: the bytes must be the same

Run by ``make wheels`` and ``make wheels-twice``; docs/wheels.md says what to expect.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import audit
import lock

ROOT = Path(__file__).resolve().parents[1]
TARGETS = {"x86_64": "x86_64-unknown-linux-gnu", "aarch64": "aarch64-unknown-linux-gnu"}
REQUIRED = "x86_64"
"""Kaggle's machines. A toolchain without the other target still makes a wheelhouse."""

SOURCES = ("Cargo.toml", "Cargo.lock", "pyproject.toml", "README.md", "LICENSE-MIT", "LICENSE-APACHE", "rust", "python")
NOT_SOURCES = ("*.so", "__pycache__", "target", ".*")
EPOCH = "315532800"
"""1980-01-01, the first day that a zip can tell: the same sources give the same wheel on any day."""


def copy_sources(into: Path) -> Path:
    """Only what the wheel is made of: nothing that lies about in a work tree gets in."""
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(parents=True)
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, into / name, ignore=shutil.ignore_patterns(*NOT_SOURCES))
        else:
            shutil.copy2(ROOT / name, into / name)
    return into


def cargo_home() -> Path:
    return Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo"))


def build_environment(source: Path, target_dir: Path) -> dict[str, str]:
    """The caller's environment, less what would change the bytes of the library."""
    remap = [f"--remap-path-prefix={cargo_home()}=/cargo", f"--remap-path-prefix={source}=/vesu"]
    environment = {key: value for key, value in os.environ.items() if "RUSTFLAGS" not in key}
    return environment | {
        "CARGO_ENCODED_RUSTFLAGS": "\x1f".join(remap),
        "CARGO_TARGET_DIR": str(target_dir),
        "SOURCE_DATE_EPOCH": os.environ.get("SOURCE_DATE_EPOCH", EPOCH),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # maturin looks for ziglang there
    }


def has_target(triple: str) -> bool:
    """Whether the Rust toolchain has the standard library of a target."""
    command = ["rustc", "--print", "target-libdir", "--target", triple]
    folder = Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
    return any(folder.glob("libstd-*"))


def build_vesu(arch: str, source: Path, target_dir: Path, into: Path) -> Path:
    """One abi3 wheel for manylinux_2_17, linked by zig against that glibc's symbols."""
    command = [sys.executable, "-m", "maturin", "build", "--release", "--zig", "--locked", "--quiet"]
    options = ["--target", TARGETS[arch], "--compatibility", audit.GLIBC, "--out", str(into)]
    subprocess.run([*command, *options], cwd=source, env=build_environment(source, target_dir), check=True)
    (wheel,) = into.glob(f"vesu-*_{arch}.whl")
    return wheel


def build_all(work: Path, into: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """The wheels by processor, and why others were not built."""
    source = copy_sources(work / "source")
    built, missing = {}, {}
    for arch, triple in TARGETS.items():
        if has_target(triple):
            built[arch] = build_vesu(arch, source, work / "target", into)
        elif arch == REQUIRED:
            raise SystemExit(f"this Rust toolchain has no {triple}; with rustup: rustup target add {triple}")
        else:
            missing[arch] = f"this Rust toolchain has no {triple} (rustup target add {triple})"
    return built, missing


def build_again(built: dict[str, Path], work: Path) -> dict[str, bool]:
    """A cold build in a folder of another name and umask: whether each wheel has the same bytes."""
    again = work / "a folder of another length"
    umask = os.umask(0o007)
    try:
        into = fresh(again / "wheels")
        shutil.rmtree(again / "target", ignore_errors=True)
        source = copy_sources(again / "source")
        wheels = {arch: build_vesu(arch, source, again / "target", into) for arch in built}
    finally:
        os.umask(umask)
    return {arch: wheels[arch].read_bytes() == wheel.read_bytes() for arch, wheel in built.items()}


def fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def publish(wheels: list[Path], out: Path) -> None:
    """Replace the folder's wheels, and describe them."""
    for stale in out.glob("*.whl"):
        stale.unlink()
    for wheel in wheels:
        shutil.copy2(wheel, out / wheel.name)
    subprocess.run([sys.executable, "-m", "vesu", "wheels", "manifest", str(out)], check=True)


def tools() -> dict[str, str]:
    """What made the bytes."""
    rustc = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    return {"rustc": rustc, **{name: version(name) for name in ("maturin", "ziglang", "auditwheel", "abi3audit")}}


def tell(report: dict[str, Any]) -> None:
    """The result, for a person."""
    for wheel in report["wheels"]:
        print(f"{wheel['size'] / 1e6:8.2f} MB  {wheel['sha256'][:16]}  {wheel['file']}")
    print(f"{sum(wheel['size'] for wheel in report['wheels']) / 1e6:8.2f} MB  in all")
    for arch, why in report["not_built"].items():
        print(f"not built: {arch}: {why}")
    for found in report["audits"]:
        print(f"{found['file']}: {found['manylinux']}, abi3 {found['abi3']}, {found['instructions']}")
        ran = found["ran"]
        print(f"  {ran if isinstance(ran, str) else 'ran: ' + ', '.join(ran['search'])}")
    for arch, same in report["same_bytes_twice"].items():
        print(f"{arch} built twice: {'same bytes' if same else 'DIFFERENT bytes'}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="the wheelhouse")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "wheels", help="sources, objects, report.json")
    parser.add_argument("--twice", action="store_true", help="build vesu a second time elsewhere and compare")
    options = parser.parse_args()
    out, work = options.out.resolve(), options.work.resolve()
    staging = fresh(work / "wheels")
    fetched = lock.fetch(staging)
    built, missing = build_all(work, staging)
    folders = (work, cargo_home())
    audits = [audit.audit(wheel, arch, work, folders) for arch, wheel in built.items()]
    wheels = sorted([*fetched, *built.values()])
    report: dict[str, Any] = {
        "wheels": [{"file": w.name, "size": w.stat().st_size, "sha256": lock.sha256(w)} for w in wheels],
        "not_built": missing,
        "audits": audits,
        "same_bytes_twice": build_again(built, work) if options.twice else {},
        "tools": tools(),
    }
    (work / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    tell(report)
    wrong = [f"{found['file']}: {problem}" for found in audits for problem in found["problems"]]
    wrong += [f"{arch}: two builds differ" for arch, same in report["same_bytes_twice"].items() if not same]
    if wrong:
        print("not published:", *wrong, sep="\n  ", file=sys.stderr)
        return 1
    publish(wheels, out)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (subprocess.CalledProcessError, OSError, RuntimeError, ValueError) as error:
        sys.exit(f"not published: {error}")
