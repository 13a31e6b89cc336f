"""Before NumPy is imported: its linear algebra starts with one thread, as it does under the command itself.

With more, small products wait for each other wherever another process holds one of the cores.
"""

from gradcli.network.threads import start_with_one_thread

start_with_one_thread()
