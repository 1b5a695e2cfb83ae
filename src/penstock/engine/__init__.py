"""Run items through stages of workers, in order and in bounded memory, and watch them."""

from penstock.engine.cancel import Cancel, handle_interrupts
from penstock.engine.monitor import Monitor, StageStats, bottleneck
from penstock.engine.pools import Kind, Stage, run_stages
from penstock.engine.progress import Progress, show_progress
from penstock.engine.rows import apply_rows

__all__ = [
    "Cancel",
    "Kind",
    "Monitor",
    "Progress",
    "Stage",
    "StageStats",
    "apply_rows",
    "bottleneck",
    "handle_interrupts",
    "run_stages",
    "show_progress",
]
