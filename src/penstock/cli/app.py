"""The commands, their arguments and their help; what they do is in the modules beside.

Those modules load when a command runs, so that `penstock --help` answers at once.
"""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="penstock",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help=(
        "Turn raw files into a clean corpus and a hybrid search index, and keep both in step.\n\n"
        "\b\n"
        "Examples:\n"
        "  penstock build docs corpus          a folder of text, code and Markdown\n"
        '  penstock search corpus "resume a run" -k 5\n'
        "  penstock build docs corpus          again: only what changed is done\n"
    ),
)


class Mode(StrEnum):
    """Which sides of the index answer."""

    hybrid = "hybrid"
    vector = "vector"
    words = "words"


class Fusion(StrEnum):
    """How hybrid search mixes its two sides."""

    weighted = "weighted"
    rrf = "rrf"


StorePath = Annotated[Path, typer.Argument(metavar="STORE", help="Folder of the store.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Run = Annotated[str | None, typer.Option(help="An earlier run's number; the last by default.")]
SearchMode = Annotated[
    Mode | None, typer.Option(help="hybrid where chunks have embeddings, else words.")
]


@app.callback(invoke_without_command=True)
def _common(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        from penstock import __version__

        typer.echo(f"penstock {__version__}")
        raise typer.Exit


@app.command()
def build(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A folder, a glob, a .jsonl[.gz|.zst] or .parquet file, or an object-store URL.",
        ),
    ],
    store: StorePath,
    flow: Annotated[
        Path | None, typer.Option(help="A flow.py as `penstock init` writes; else a good default.")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every file, also those that look unchanged.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with status 1 if any row failed.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    json: Json = False,
) -> None:
    r"""Bring STORE in step with SOURCE: only what is new or changed is read and computed.

    Ctrl-C finishes what is under way and keeps it for the next build; a second one stops at
    once. Rows that cannot be processed are listed by `penstock failures`.

    \b
    Examples:
      penstock build docs corpus
      penstock build 'src/**/*.py' corpus
      penstock build s3://bucket/corpus.jsonl.zst corpus --flow flow.py
    """
    from penstock.cli.build import run_build

    run_build(source, store, flow, verify=verify, strict=strict, quiet=quiet, as_json=json)


@app.command()
def init(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write.")] = Path("flow.py"),
) -> None:
    r"""Write the default flow as a commented flow.py to edit.

    \b
    Example:
      penstock init && penstock build docs corpus --flow flow.py
    """
    from penstock.cli.build import write_flow

    write_flow(path)


@app.command()
def search(
    store: StorePath,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="Plain text.")],
    k: Annotated[int, typer.Option("-k", help="Hits wanted.", min=1)] = 10,
    where: Annotated[
        str | None, typer.Option(help="SQL condition over columns and metadata.")
    ] = None,
    mode: SearchMode = None,
    fusion: Annotated[Fusion, typer.Option(help="How hybrid mixes.")] = Fusion.weighted,
    alpha: Annotated[float, typer.Option(help="Weight of the vector side.", min=0, max=1)] = 0.5,
    run: Run = None,
    json: Json = False,
) -> None:
    r"""Find the chunks that answer QUERY best.

    \b
    Examples:
      penstock search corpus "parse a date" -k 3
      penstock search corpus "parse a date" --where "extension = 'py'" --mode words
    """
    from penstock.cli.read import show_hits

    show_hits(store, query, k, where, mode and mode.value, fusion.value, alpha, run, as_json=json)


@app.command()
def status(store: StorePath, run: Run = None, json: Json = False) -> None:
    """Show what STORE holds: its run, its flow, the funnel of its documents, its size."""
    from penstock.cli.read import show_status

    show_status(store, run, as_json=json)


@app.command()
def failures(store: StorePath, run: Run = None, json: Json = False) -> None:
    """List the rows that could not be processed, why, and what to do."""
    from penstock.cli.read import show_failures

    show_failures(store, run, as_json=json)


@app.command()
def runs(store: StorePath, json: Json = False) -> None:
    """List the published runs of STORE."""
    from penstock.cli.read import show_runs

    show_runs(store, as_json=json)


@app.command("eval")
def evaluate(
    store: StorePath,
    queries: Annotated[Path, typer.Option(help="JSON lines with _id and text.")],
    qrels: Annotated[Path, typer.Option(help="Tab-separated query-id, corpus-id, score.")],
    mode: SearchMode = None,
    fusion: Annotated[Fusion, typer.Option(help="How hybrid mixes.")] = Fusion.weighted,
    alpha: Annotated[float, typer.Option(help="Weight of the vector side.", min=0, max=1)] = 0.5,
    json: Json = False,
) -> None:
    r"""Measure search on judged queries in BEIR's layout; a hit counts for its document.

    \b
    Example:
      penstock eval corpus --queries queries.jsonl --qrels qrels/test.tsv --mode words
    """
    from penstock.cli.read import show_evaluation

    show_evaluation(store, queries, qrels, mode and mode.value, fusion.value, alpha, as_json=json)


def main() -> None:
    """Run the command; an error of ours is one line and exit status 2."""
    # A reader that stops early, as in `penstock search ... | head`, is no error.
    try:
        app(standalone_mode=True)
    except KeyboardInterrupt:
        typer.echo("Stopped. What was done is kept: the next build goes on from here.", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
    except Exception as err:
        if type(err).__module__ != "penstock.errors":
            raise
        typer.echo(f"penstock: {err}", err=True)
        sys.exit(2)
