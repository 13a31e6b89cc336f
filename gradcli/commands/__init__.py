"""One file a command: a plain function, which Python and the command line call alike. One line here for each.

What is imported as itself is Python's too, as `gradcli.NAME`; the help text lists all in this order. Nothing slow is
imported before a command runs.
"""

from __future__ import annotations

# isort: off
from gradcli.commands.simulate import simulate as simulate
from gradcli.commands.compare import compare as compare
from gradcli.commands.jacobian import jacobian as jacobian
from gradcli.commands.paths import paths as paths
from gradcli.commands.contributions import contributions as contributions
from gradcli.commands.gates import gates as gates
from gradcli.commands.report import report as report
from gradcli.commands.inspect import inspect as inspect
from gradcli.commands.check import check as check
from gradcli.commands.cells import show_cells as _cells  # noqa: F401
from gradcli.commands.examples import show_examples as _examples  # noqa: F401
from gradcli.commands.init import starter as _init  # noqa: F401
from gradcli.commands.schema import show_schema as _schema  # noqa: F401
