"""Train a small language model from a store; kill it, and go on with another number of processes.

    python examples/train_tiny_lm.py demo OUT

builds a store of this Python's library, trains on 2 processes without a break, trains again and
kills that in its middle, goes on with 3 processes, and plots both curves of loss: they are one.

    torchrun --nproc-per-node 2 examples/train_tiny_lm.py train STORE CHECKPOINTS

trains on any store with tokens. Needs: pip install 'penstock[torch]', and matplotlib for the plot.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

import penstock as ps
from penstock.loader.torch import DeviceBatches

WIDTH, HEADS, LAYERS = 128, 4, 2


class Block(nn.Module):  # type: ignore[misc]
    """Attention inside documents, and a layer for each token."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.heads, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(
            nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH)
        )

    def forward(self, x: Any, mask: Any) -> Any:
        """(rows, seq_len, WIDTH), and which tokens see which."""
        rows, seq_len, _ = x.shape
        parts = self.heads(self.before(x)).view(rows, seq_len, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(*parts, attn_mask=mask)
        x = x + self.out(seen.transpose(1, 2).reshape(rows, seq_len, WIDTH))
        return x + self.mlp(self.between(x))


class TinyLM(nn.Module):  # type: ignore[misc]
    """A transformer of two layers."""

    def __init__(self, vocab_size: int, seq_len: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, WIDTH)
        self.positions = nn.Embedding(seq_len, WIDTH)
        for table in (self.tokens, self.positions):
            nn.init.normal_(table.weight, std=0.02)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, batch: dict[str, Any]) -> Any:
        """The sum of the losses of all labels in a batch."""
        segments = batch["segment_ids"]
        same = segments[:, :, None] == segments[:, None, :]
        mask = torch.tril(same)[:, None]  # of its own document, what comes before
        x = self.tokens(batch["tokens"]) + self.positions(batch["position_ids"])
        for block in self.blocks:
            x = block(x, mask)
        logits = self.norm(x) @ self.tokens.weight.T
        labels = batch["labels"].reshape(-1)
        return functional.cross_entropy(logits.flatten(0, 1), labels, reduction="sum")


class Checkpoints:
    """Model, optimizer and loader, written while training goes on."""

    def __init__(self, folder: Path, model: Any, optimizer: Any, batches: DeviceBatches) -> None:
        self._folder, self._model, self._optimizer = folder, model, optimizer
        self._batches = batches
        # Its own connections: the thread that writes must not mix with the training's.
        self._group = dist.new_group(backend="gloo")
        self._writing: Any = None

    def _state(self) -> dict[str, Any]:
        model, optimizer = get_state_dict(self._model, self._optimizer)
        place = json.dumps(self._batches.state_dict())
        return {"model": model, "optimizer": optimizer, "loader": place}

    def save(self, step: int) -> None:
        """Begin to write; waits only for the checkpoint before."""
        self.wait()
        name = self._folder / f"step-{step:06d}"
        self._writing = dcp.async_save(self._state(), checkpoint_id=name, process_group=self._group)

    def wait(self) -> None:
        """Wait for what is being written."""
        if self._writing is not None:
            self._writing.result()

    def load(self) -> int:
        """Go to the last checkpoint that is whole; the number of its step, 0 without one."""
        # The metadata is written last.
        names = sorted(path.parent for path in self._folder.glob("step-*/.metadata"))
        if not names:
            return 0
        state = self._state()
        dcp.load(state, checkpoint_id=names[-1], process_group=self._group)
        set_state_dict(
            self._model,
            self._optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
        )
        self._batches.load_state_dict(json.loads(state["loader"]))
        return int(names[-1].name.removeprefix("step-"))


def train(options: argparse.Namespace) -> None:
    """Train as one of the processes that torchrun started."""
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    store = ps.Store.open(options.store)
    loader = store.loader(seq_len=options.seq_len, global_batch_size=options.batch, seed=1)
    batches = DeviceBatches(loader)  # it takes this process's share
    vocab_size = store.tokens().tokenizer().get_vocab_size()
    model = DistributedDataParallel(TinyLM(vocab_size, options.seq_len))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    checkpoints = Checkpoints(Path(options.checkpoints), model, optimizer, batches)
    step = checkpoints.load()
    while step < options.steps:
        for batch in batches:
            step += 1
            total = _learn(model, optimizer, batch)
            if dist.get_rank() == 0:
                _note(options.checkpoints, step, total / batch["num_label_tokens"])
            if step % options.every == 0:
                checkpoints.save(step)
            if step == options.die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            if step == options.steps:
                break
    checkpoints.wait()
    dist.destroy_process_group()


def _learn(model: Any, optimizer: Any, batch: dict[str, Any]) -> float:
    """One step; the sum of the losses of all ranks."""
    loss = model(batch)
    optimizer.zero_grad()
    # DDP takes the mean over ranks; what is wanted is the mean over the labels of all of them.
    (loss * dist.get_world_size() / batch["num_label_tokens"]).backward()
    optimizer.step()
    total = loss.detach()
    dist.all_reduce(total)
    return float(total)


def _note(folder: str, step: int, loss: float) -> None:
    with open(Path(folder) / "losses.jsonl", "a") as file:
        facts = {"step": step, "loss": loss, "ranks": dist.get_world_size()}
        file.write(json.dumps(facts) + "\n")


def demo(options: argparse.Namespace) -> None:
    """Everything that the head of this file says."""
    out = Path(options.out)
    store = build_store(out)
    whole, broken = out / "whole", out / "broken"
    for folder in (whole, broken):
        folder.mkdir(parents=True)
    _torchrun(2, store, whole)
    died = _torchrun(2, store, broken, "--die-at", "37")
    print(f"killed in step 37 (exit status {died}); going on with 3 processes")
    _torchrun(3, store, broken)
    curves = {folder.name: read_losses(folder) for folder in (whole, broken)}
    differences = [
        abs(curves["whole"][step][0] - curves["broken"][step][0]) for step in curves["whole"]
    ]
    for step in (1, 10, 20, 30, 31, 37, 40, 50, 60):
        (loss, _), (other, ranks) = curves["whole"][step], curves["broken"][step]
        print(f"step {step:3}  uninterrupted {loss:.5f}  resumed {other:.5f} on {ranks} ranks")
    print(f"largest difference of any of {len(differences)} steps: {max(differences):.6f}")
    plot(curves, out / "losses.png")


def build_store(out: Path) -> Path:
    """A store of this Python's own library, with a tokenizer trained on it."""
    source = ps.files(sysconfig.get_paths()["stdlib"], include=["email/*.py", "json/*.py"])
    steps: list[Any] = [ps.Normalize(), ps.ExactDedup()]
    ps.Flow(source=source, steps=steps).run(out / "store")
    command = ["tokenizer", "train", str(out / "store"), "--vocab-size", "2000"]
    subprocess.run(
        [sys.executable, "-c", "import penstock.cli; penstock.cli.main()", *command], check=True
    )
    tokenizer = out / "store/tokenizer.json"
    tokenize = ps.Tokenize(tokenizer=tokenizer, end_of_document="<|endoftext|>")
    report = ps.Flow(source=source, steps=[*steps, tokenize]).run(out / "store")
    print(f"{report.kept} documents, {report.tokens:,} tokens")
    return out / "store"


def _torchrun(num_processes: int, store: Path, folder: Path, *more: str) -> int:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(num_processes), __file__, "train", str(store), str(folder)]
    done = subprocess.run([*command, *more], stderr=subprocess.PIPE, text=True)
    if done.returncode and not more:
        sys.exit(done.stderr)
    return done.returncode


def read_losses(folder: Path) -> dict[int, tuple[float, int]]:
    """Loss and number of ranks by step; what was done again counts the second time."""
    lines = (folder / "losses.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return {row["step"]: (row["loss"], row["ranks"]) for row in rows}


def plot(curves: dict[str, dict[int, tuple[float, int]]], path: Path) -> None:
    """Draw both curves; in text where matplotlib is not installed."""
    try:
        import matplotlib
    except ImportError:
        for step, (loss, _) in curves["broken"].items():
            print(f"{step:4} {'#' * int(8 * loss)}")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    for name, style in (("whole", "-"), ("broken", "--")):
        steps = list(curves[name])
        pyplot.plot(steps, [curves[name][step][0] for step in steps], style, label=name)
    pyplot.xlabel("step")
    pyplot.ylabel("loss")
    pyplot.legend(["2 processes, uninterrupted", "killed in step 37, resumed from 30 on 3"])
    pyplot.savefig(path, dpi=120)
    print(f"wrote {path}")


def main() -> None:
    """Read the arguments and do it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(required=True)
    shown = commands.add_parser("demo")
    shown.add_argument("out")
    shown.set_defaults(run=demo)
    trains = commands.add_parser("train")
    trains.add_argument("store")
    trains.add_argument("checkpoints")
    for name, value in (("steps", 60), ("every", 10), ("batch", 8), ("seq-len", 128)):
        trains.add_argument(f"--{name}", type=int, default=value)
    trains.add_argument("--die-at", type=int, default=-1, help="End by SIGKILL in this step.")
    trains.set_defaults(run=train)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
