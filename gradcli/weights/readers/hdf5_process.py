"""The process that reads an HDF5 file: the C library crashes and loops on hostile files, and takes only itself along.

Of 4,000 small files with a few bytes changed, HDF5 2.0.0 crashed on one and never came back from four. The process
costs about 0.1 s. It speaks through its pipes: a frame is a JSON object after its length, 8 bytes; the entries of a
tensor follow theirs as they are. Nothing that it says is executed or unpickled.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import signal
import subprocess
import sys
from pathlib import Path
from threading import Timer
from typing import Any

import numpy as np

from gradcli.errors import GradcliError, InputFileError, ResourceError, UsageError
from gradcli.weights.checkpoint import ITEM_BYTES, Tensor

Array = np.ndarray[Any, Any]

#: Seconds of computing, and of waiting for it, after which a file is given up; each may take one more for as many bytes
#: of a tensor. Opening a file of as many objects as are allowed takes two.
COMPUTING = 5
PATIENCE = 30
BYTES_PER_SECOND = 20 * 2**20
#: Bytes of memory for HDF5 itself, beside what it reads.
WORKING_BYTES = 2**30
#: More than any list of a file's tensors takes; an answer that claims more is not read.
MAX_FRAME = 2**28

_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]);"
    " from gradcli.weights.readers.hdf5_process import serve; serve()"
)


class Hdf5Process:
    """A process that has an HDF5 file open.

    listed: what `hdf5.Listed` says, as JSON carries it.

    Raises, here and on reading:
        InputFileError: the file is damaged or refused, or HDF5 crashed on it.
        ResourceError: it would take more memory or time than any checkpoint needs.
    """

    def __init__(self, path: Path, name: str) -> None:
        self._name = name
        self._process = subprocess.Popen(
            # -I: no module is taken from the folder in which a user happens to be, unless gradcli itself would
            [sys.executable, "-I", "-c", _PROGRAM, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # no plug-ins of HDF5, and no threads that take memory for nothing
            env={**os.environ, "HDF5_PLUGIN_PRELOAD": "::", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )
        try:
            self.listed: dict[str, Any] = self._ask({"path": os.path.abspath(path)}, None)
        except BaseException:
            self.close()
            raise

    def read(self, tensor: Tensor) -> Array:
        """Return the entries of a tensor; of bfloat16 their bits, as uint16."""
        if self._process.poll() is not None:
            raise InputFileError(f"{self._name}: damaged: the HDF5 library has crashed on it")
        entries: Array = self._ask({"tensor": tensor.name, "shape": tensor.shape, "dtype": tensor.dtype}, tensor)
        return entries

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def _ask(self, request: dict[str, Any], tensor: Tensor | None) -> Any:
        more = tensor.nbytes // BYTES_PER_SECOND if tensor else 0
        timer = Timer(PATIENCE + more, self._process.kill)
        timer.start()
        try:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            _write_frame(self._process.stdin, {**request, "seconds": COMPUTING + more})
            answer = _read_frame(self._process.stdout)
            if tensor is None or "error" in answer:
                return self._checked(answer)
            entries = np.empty(tensor.shape, np.uint16 if tensor.dtype == "bfloat16" else tensor.dtype)
            if entries.size:
                _read_into(self._process.stdout, entries.reshape(-1).view(np.uint8).data)
            return entries
        except MemoryError:
            raise ResourceError(f"{self._name}: needs more memory than there is") from None
        except (EOFError, OSError, ValueError):
            expired = not timer.is_alive()
            self.close()
            if expired or -self._process.returncode == getattr(signal, "SIGXCPU", None):
                raise ResourceError(
                    f"{self._name}: the HDF5 library does not come to an end with it; perhaps it is damaged"
                ) from None
            raise InputFileError(f"{self._name}: damaged: the HDF5 library crashes on it") from None
        finally:
            timer.cancel()

    def _checked(self, answer: dict[str, Any]) -> dict[str, Any]:
        if "error" not in answer:
            return answer
        kinds: dict[str, type[GradcliError]] = {kind.__name__: kind for kind in (UsageError, ResourceError)}
        raise kinds.get(answer["error"], InputFileError)(f"{self._name}: {answer['text']}")


def serve() -> None:
    """Answer requests until there are no more; what the process runs."""
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for gradcli, which then ends this process
    if hasattr(signal, "SIGXCPU"):
        signal.signal(signal.SIGXCPU, signal.SIG_DFL)  # who started gradcli may have it ignored, and the limit with it
    request = _read_frame(requests)
    try:
        from gradcli.weights.readers import hdf5
    except ImportError as error:
        _write_frame(answers, {"error": UsageError.__name__, "text": f"h5py cannot be imported: {error}"})
        return
    opened: hdf5.Hdf5File | None = None
    room = _address_space() + WORKING_BYTES
    while True:
        entries: Array | None = None
        try:
            if opened is None:
                file = open(request["path"], "rb")  # noqa: SIM115  for as long as the process lives
                room += hdf5.MAX_UNPACKED_BYTES if file.peek(2)[:2] == b"PK" else 0
                _limit(request["seconds"], room)
                opened = hdf5.Hdf5File(file)
                answer: dict[str, Any] = opened.listed()._asdict()
            else:
                shape = tuple(request["shape"])
                # the entries, and chunks that are as large while they are unpacked
                _limit(request["seconds"], room + 3 * math.prod(shape) * ITEM_BYTES[request["dtype"]])
                entries = opened.read(request["tensor"], shape, request["dtype"])
                answer = {}
        except GradcliError as error:
            answer = {"error": type(error).__name__, "text": str(error)}
        except MemoryError:
            answer = {"error": ResourceError.__name__, "text": "needs more memory than any checkpoint; it is damaged"}
        except hdf5.DAMAGE as error:
            answer = {"error": InputFileError.__name__, "text": f"damaged: {_one_line(error)}"}
        _write_frame(answers, answer)
        if entries is not None and entries.size:
            answers.write(entries.reshape(-1).view(np.uint8).data)
            answers.flush()
        try:
            request = _read_frame(requests)
        except EOFError:
            return


def _address_space() -> int:
    """Return the bytes of address space that this process has taken; 0 where the system does not say."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[0]) * mmap.PAGESIZE if statm.exists() else 0


def _limit(seconds: int, address_space: int) -> None:
    """Let the operating system stop what the library might do: take memory or time, and open or write other files."""
    try:
        import resource
    except ImportError:  # Windows has none of these; the parent's patience is all there is
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    limits = {"CPU": int(used.ru_utime + used.ru_stime) + seconds, "NOFILE": 0, "FSIZE": 0, "CORE": 0}
    if sys.platform == "linux":  # elsewhere this is not enforced, or not measured
        limits["AS"] = address_space
    for name, limit in limits.items():
        which = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(which)[1]
        resource.setrlimit(which, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return "".join(char for char in text if char.isprintable())[:200]


def _write_frame(to: Any, content: dict[str, Any]) -> None:
    text = json.dumps(content).encode()
    to.write(len(text).to_bytes(8, "little") + text)
    to.flush()


def _read_frame(of: Any) -> dict[str, Any]:
    start = bytearray(8)
    _read_into(of, memoryview(start))
    size = int.from_bytes(start, "little")
    if size > MAX_FRAME:
        raise ValueError(f"a frame of {size} bytes")
    text = bytearray(size)
    _read_into(of, memoryview(text))
    content: dict[str, Any] = json.loads(text)
    return content


def _read_into(of: Any, buffer: memoryview) -> None:
    at = 0
    while at < len(buffer):
        count = of.readinto(buffer[at:])
        if not count:
            raise EOFError
        at += count
