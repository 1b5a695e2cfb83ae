"""The commands that train tokenizers and look at what a loader will serve: what they are called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

tokenizer = typer.Typer(
    help="Train a tokenizer on a store, or make its tokens anew.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
loader = typer.Typer(
    help="Look at what a loader will serve, before any training.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

StorePath = Annotated[
    str, typer.Argument(metavar="STORE", help="Folder or URL of the store.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Run = Annotated[str | None, typer.Option(help="An earlier run's number; the last by default.")]
SeqLen = Annotated[int | None, typer.Option(help="Tokens of a packed row; 2048 by default.")]
BatchSize = Annotated[
    int | None, typer.Option("--global-batch-size", help="Rows of a step over all ranks.")
]
MaxTokens = Annotated[
    int | None, typer.Option(help="In its place: tokens of a step over all ranks.")
]
Seed = Annotated[int, typer.Option(help="Chooses the order.")]
Epoch = Annotated[int, typer.Option(help="Chooses it, too.")]
WorldSize = Annotated[int, typer.Option(help="How many ranks there are.")]
BlockSize = Annotated[int, typer.Option(help="Neighbours that stay in one shuffle window.")]
Blocks = Annotated[int, typer.Option(help="Blocks that are shuffled together.")]
LastStep = Annotated[str, typer.Option(help="pad or drop what does not fill a step.")]
Where = Annotated[str | None, typer.Option(help="Only documents that satisfy this SQL condition.")]


@tokenizer.command("train")
def train(
    store: StorePath,
    vocab_size: Annotated[int, typer.Option(help="Tokens, special ones included.", min=257)],
    output: Annotated[
        Path | None, typer.Option(help="Where to write; STORE/tokenizer.json by default.")
    ] = None,
    max_mb: Annotated[int, typer.Option(help="Text to train on at most, in MB.", min=1)] = 200,
    run: Run = None,
    json: Json = False,
) -> None:
    """Train a byte-level BPE tokenizer on the kept documents, a sample of them if there are many.

    The same documents give the same tokenizer. Its token <|endoftext|> may end documents.

    \b
    Examples:
      penstock tokenizer train corpus --vocab-size 32000
      penstock tokenizer train corpus --vocab-size 50000 --output bpe.json --max-mb 1000
    """  # noqa: D301 - \b keeps lines as they are
    from penstock.cli.training import train_and_write

    train_and_write(store, vocab_size, output, max_mb * 1_000_000, run, as_json=json)


@tokenizer.command("rebuild")
def rebuild(store: StorePath) -> None:
    """Make the tokens of STORE anew from its documents, and publish them as a new run.

    \b
    Example:
      penstock tokenizer rebuild corpus
    """  # noqa: D301 - \b keeps lines as they are
    from penstock.cli.training import rebuild as rebuild_store

    rebuild_store(store)


@loader.command("plan")
def plan(
    store: StorePath,
    seq_len: SeqLen = None,
    batch_size: BatchSize = None,
    max_tokens: MaxTokens = None,
    seed: Seed = 0,
    epoch: Epoch = 0,
    world_size: WorldSize = 1,
    block_size: BlockSize = 256,
    blocks_per_window: Blocks = 256,
    last_step: LastStep = "pad",
    where: Where = None,
    run: Run = None,
    json: Json = False,
) -> None:
    """Say what an epoch will be: steps, tokens, padding, bytes read, how well it is shuffled.

    Nothing but lengths is read.

    \b
    Examples:
      penstock loader plan corpus --seq-len 2048 --global-batch-size 64 --world-size 8
      penstock loader plan corpus --max-tokens 65536 --where "extension = 'py'" --json
    """  # noqa: D301 - \b keeps lines as they are
    from penstock.cli.training import show_plan

    settings = _settings(seq_len, batch_size, max_tokens)
    settings |= {"seed": seed, "epoch": epoch, "world_size": world_size, "where": where}
    settings |= {"block_size": block_size, "blocks_per_window": blocks_per_window}
    show_plan(store, run, settings | {"last_step": last_step}, as_json=json)


@loader.command("show")
def show(
    store: StorePath,
    seq_len: SeqLen = None,
    batch_size: BatchSize = None,
    max_tokens: MaxTokens = None,
    seed: Seed = 0,
    epoch: Epoch = 0,
    rank: Annotated[int, typer.Option(help="Which rank's batches.")] = 0,
    world_size: WorldSize = 1,
    steps: Annotated[int, typer.Option("-n", help="Batches to show.", min=1)] = 1,
    where: Where = None,
    run: Run = None,
    json: Json = False,
) -> None:
    """Print the first batches, decoded: each row's documents and where they begin.

    \b
    Examples:
      penstock loader show corpus --seq-len 512 --global-batch-size 2
      penstock loader show corpus --max-tokens 4096 -n 3 --json
    """  # noqa: D301 - \b keeps lines as they are
    from penstock.cli.training import show_batches

    settings = _settings(seq_len, batch_size, max_tokens)
    settings |= {"seed": seed, "epoch": epoch, "rank": rank, "world_size": world_size}
    show_batches(store, run, steps, settings | {"where": where}, as_json=json)


def _settings(
    seq_len: int | None, batch_size: int | None, max_tokens: int | None
) -> dict[str, Any]:
    """What was asked for; packed rows of 2,048 tokens, eight a step, where nothing was."""
    if batch_size is None and max_tokens is None:
        batch_size, seq_len = 8, seq_len or 2048
    return {"seq_len": seq_len, "global_batch_size": batch_size, "max_tokens": max_tokens}
