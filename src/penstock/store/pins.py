"""Which runs are open: a reader holds a shared lock on its run's manifest, which dies with it.

So an ordinary build, when it drops old runs, leaves those that somebody reads.
Where the file system has no locks nothing is held, and nothing fails.
"""

from __future__ import annotations

import contextlib
import os
import sys
import weakref
from pathlib import Path

from penstock.store.places import Place


def pin(owner: object, manifest: Place) -> None:
    """Hold a run open until `owner` is gone."""
    if sys.platform == "win32" or not isinstance(manifest, Path):
        return
    import fcntl

    with contextlib.suppress(OSError):
        fd = os.open(manifest, os.O_RDONLY)
        weakref.finalize(owner, os.close, fd)
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)


def is_pinned(manifest: Path) -> bool:
    """Whether somebody, here or in another process, reads the run."""
    import fcntl

    try:
        fd = os.open(manifest, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(fd)
    return False
