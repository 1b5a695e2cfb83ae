import os
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.errors import LeaseError
from penstock.store.lease import Lease

_HOLD = """
import sys, time
from pathlib import Path
from penstock.store.lease import Lease
with Lease(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_writer_is_told_who_holds_the_store(tmp_path: Path) -> None:
    with (
        Lease(tmp_path),
        pytest.raises(LeaseError, match=rf"process {os.getpid()} on .* has been writing it"),
        Lease(tmp_path),
    ):
        pass


def test_a_killed_writer_loses_the_lease(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(LeaseError), Lease(tmp_path):
        pass
    holder.kill()
    holder.wait()
    holder.stdout.close()

    with Lease(tmp_path) as lease:
        lease.check()


@pytest.mark.parametrize("loss", ["removed", "taken-over"])
def test_a_writer_notices_that_it_lost_the_lease(tmp_path: Path, loss: str) -> None:
    with Lease(tmp_path) as lease:
        (tmp_path / "writer.lock").unlink()
        if loss == "taken-over":
            with Lease(tmp_path), pytest.raises(LeaseError, match="lost its lease"):
                lease.check()
        with pytest.raises(LeaseError, match="lost its lease"):
            lease.check()


def test_the_lease_is_free_again_after_use(tmp_path: Path) -> None:
    for _ in range(2):
        with Lease(tmp_path) as lease:
            lease.check()
