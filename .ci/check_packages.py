"""Look at the wheels and the sdist in a folder: python .ci/check_packages.py dist

The wheel is to hold the package, its cells, its examples and the manual page, and nothing of the tests; the extension
where it is tagged for a platform, and its C source never. The sdist is to hold what the tests need. What an index
shows of the README may have no link or picture that leads nowhere there. Prints what is wrong and ends with status 1,
or says what it has looked at.
"""

from __future__ import annotations

import re
import sys
import tarfile
import zipfile
from collections.abc import Collection, Iterable
from email import message_from_bytes
from pathlib import Path

MOST_BYTES = 1_000_000
#: What the extension may take on top of that.
MOST_OF_EXTENSION = 400_000
ROOT = Path(__file__).resolve().parents[1]
#: What only those need who change gradcli.
_NOT_INSTALLED = ("tests", "benchmarks", "docs", ".ci")
EXTENSION = "gradcli/engine/compiled/_interpreter.abi3.so"
_LINK = re.compile(r"\]\(([^)\s]+)\)|<(?:a|img)\b[^>]*(?:href|src)=[\"']?([^\"'\s>]+)")


def faults_of_wheel(names: Collection[str], size: int, built: bool = False) -> Iterable[str]:
    """Yield what is wrong with a wheel that holds files of these names, in `size` bytes; `built` for a platform."""
    yield from (f"the wheel has {name}" for name in names if name.split("/")[0] in _NOT_INSTALLED)
    package = {f"gradcli/{path.relative_to(ROOT / 'gradcli')}" for path in _files(ROOT / "gradcli")}
    package = {name for name in package if not name.endswith((".c", ".h"))} | ({EXTENSION} if built else set())
    examples = {f"gradcli/{path.relative_to(ROOT)}" for path in _files(ROOT / "examples" / "configs")}
    wanted = package | examples | {"gradcli/examples/data/digits.npz", "gradcli/LICENSE"}
    yield from (f"the wheel has no {name}" for name in sorted(wanted - set(names)))
    if not any(name.endswith(".data/data/share/man/man1/gradcli.1") for name in names):
        yield "the wheel has no manual page"
    if not built and EXTENSION in names:
        yield f"the wheel has {EXTENSION}, and is tagged for every platform"
    yield from (f"the wheel has {name}" for name in names if name.endswith((".c", ".h")))
    most = MOST_BYTES + (MOST_OF_EXTENSION if built else 0)
    if size > most:
        yield f"the wheel has {size:,} bytes, more than {most:,}"


def faults_of_sdist(names: Collection[str]) -> Iterable[str]:
    """Yield what is wrong with an sdist that holds files of these names, its own folder left out."""
    wanted = {"pyproject.toml", "README.md", "LICENSE", "CITATION.cff", "CHANGELOG.md", ".ci/run", "docs/gradcli.1"}
    for folder in ("gradcli", "tests", "examples", "benchmarks"):
        wanted |= {str(path.relative_to(ROOT)) for path in _files(ROOT / folder)}
    yield from (f"the sdist has no {name}" for name in sorted(wanted - set(names)))


def faults_of_description(text: str) -> Iterable[str]:
    """Yield the links and pictures of a description that lead nowhere on a package index."""
    for found in _LINK.finditer(text):
        target = found[1] or found[2]
        if not target.startswith(("https://", "#")):
            yield f"the description has a link to {target}"


def _files(folder: Path) -> Iterable[Path]:
    return (
        path
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".so"
    )


def main() -> int:
    """Look at them, and say what is wrong."""
    folder = Path(sys.argv[1])
    wheels, (sdist,) = sorted(folder.glob("*.whl")), folder.glob("*.tar.gz")
    faults, looked_at = [], []
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            metadata = archive.read(next(name for name in names if name.endswith(".dist-info/METADATA")))
        faults += faults_of_wheel(names, wheel.stat().st_size, "-abi3-" in wheel.name)
        faults += faults_of_description(str(message_from_bytes(metadata).get_payload()))
        looked_at.append(f"{wheel.name}: {len(names)} files, {wheel.stat().st_size:,} bytes")
    with tarfile.open(sdist) as files:
        inside = [name.partition("/")[2] for name in files.getnames()]
    faults += faults_of_sdist(inside)
    if not wheels:
        faults.append("there is no wheel")
    for fault in faults:
        print(fault, file=sys.stderr)  # noqa: T201
    if not faults:
        print(*looked_at, f"{sdist.name}: {len(inside)} files", sep="; ")  # noqa: T201
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
