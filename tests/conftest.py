"""What has to be settled before the tests are loaded."""

import signal

from gradcli.network.threads import start_with_one_thread

# NumPy's linear algebra starts with one thread, as it does under the command itself: with more, small products wait for
# each other wherever another process holds one of the cores. This comes before NumPy's import.
start_with_one_thread()

# A shell that starts the tests in the background has them ignore Ctrl-C, and with them the commands that they run.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
