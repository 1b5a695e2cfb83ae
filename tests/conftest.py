"""What every test may rely on."""

from __future__ import annotations

import signal

# A shell starts what it runs in the background with Ctrl-C ignored, and Python then leaves it so.
# Tests send themselves that signal, and would wait for it forever.
signal.signal(signal.SIGINT, signal.default_int_handler)
