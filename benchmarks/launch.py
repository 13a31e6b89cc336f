"""Run one command and print how long it took and its peak memory, as JSON. Standard library only, and little of it.

A process of its own, because a child's peak memory is counted from that of the process which starts it: it has to be
smaller than what it measures.
"""

import os
import sys
import time


def main() -> int:
    """Run the command in the arguments; return its exit code, or 1 where a signal ended it."""
    quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    start = time.perf_counter()
    process = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=quiet)
    _, status, usage = os.wait4(process, 0)
    seconds = time.perf_counter() - start
    unit = 1 if sys.platform == "darwin" else 1024
    sys.stdout.write(f'{{"seconds": {seconds!r}, "peak_bytes": {usage.ru_maxrss * unit}}}\n')
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 1


if __name__ == "__main__":
    raise SystemExit(main())
