"""What every test may rely on."""

from __future__ import annotations

import signal

from hypothesis import settings

# A shell starts what it runs in the background with Ctrl-C ignored, and Python then leaves it so.
# Tests send themselves that signal, and would wait for it forever.
signal.signal(signal.SIGINT, signal.default_int_handler)

# `pytest --hypothesis-profile=nightly`: thousands of steps where a normal run takes hundreds.
settings.register_profile("nightly", settings.get_profile("default"), deadline=None)
