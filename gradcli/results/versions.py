"""What a run's numbers depend on beside its spec: versions of the software, and the library of matrix products."""

from __future__ import annotations

import platform

from gradcli import __version__
from gradcli.results.model import Column, Table


def versions_table() -> Table:
    """Return the versions that rounding may depend on; the same on every run of an installation."""
    import numpy as np
    from threadpoolctl import threadpool_info

    libraries = {
        (
            str(pool.get("internal_api") or pool["prefix"]),
            str(pool.get("version") or ""),
            str(pool.get("architecture") or ""),
        )
        for pool in threadpool_info()
        if pool["user_api"] == "blas"
    }
    rows = [
        ("gradcli", __version__),
        ("Python", platform.python_version()),
        ("NumPy", np.__version__),
        *((name, " ".join(filter(None, (version, kernel)))) for name, version, kernel in sorted(libraries)),
        ("machine", f"{platform.system()} {platform.machine()}"),
    ]
    return Table([Column("", "text", keep=9), Column("version", "text", keep=9)], rows)
