"""The commands, their arguments and their help; what they do is in the modules beside.

Those modules load when a command runs, so that `penstock --help` answers at once.
"""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from penstock.cli.feeding import loader, tokenizer

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


StorePath = Annotated[
    str, typer.Argument(metavar="STORE", help="Folder of the store, or s3://BUCKET/PREFIX.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Run = Annotated[
    str | None, typer.Option(help="An earlier run's number or tag; the last by default.")
]
SearchMode = Annotated[
    Mode | None, typer.Option(help="hybrid where chunks have embeddings, else words.")
]
SearchFusion = Annotated[Fusion | None, typer.Option(help="How hybrid mixes its two sides.")]
SearchAlpha = Annotated[
    float | None, typer.Option(help="Weight of the vector side in [0, 1].", min=0, max=1)
]
Queries = Annotated[Path, typer.Option(help="JSON lines with _id and text.")]
Qrels = Annotated[Path, typer.Option(help="Tab-separated query-id, corpus-id, score.")]
Require = Annotated[
    list[str] | None,
    typer.Option(help="A least value, as 'ndcg@10>=0.40'; repeatable. Exit status 1 if missed."),
]
Seed = Annotated[int, typer.Option(help="Decides what is drawn at random.", min=0)]


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
    require: Require = None,
    judgements: Annotated[
        Path | None,
        typer.Option(help="A folder as BEIR's, for --require: queries.jsonl, qrels/test.tsv."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    json: Json = False,
) -> None:
    """Bring STORE in step with SOURCE: only what is new or changed is read and computed.

    Ctrl-C finishes what is under way and keeps it for the next build; a second one stops at
    once. Rows that cannot be processed are listed by `penstock failures`. With --require the run is
    searched before it is published; if it misses what is required, the one before stands.

    \b
    Examples:
      penstock build docs corpus
      penstock build 'src/**/*.py' corpus
      penstock build s3://bucket/corpus.jsonl.zst corpus --flow flow.py
      penstock build docs corpus --flow new.py --require "ndcg@10>=0.4" --judgements judged
    """  # noqa: D301 - \b keeps lines as they are
    from penstock.cli.build import run_build

    gate = (require or [], judgements)
    run_build(source, store, flow, gate, verify=verify, strict=strict, quiet=quiet, as_json=json)


class Shards(StrEnum):
    """Formats of an export."""

    mds = "mds"
    webdataset = "webdataset"
    parquet = "parquet"
    lance = "lance"


class Changed(StrEnum):
    """What becomes of a shard with documents that changed or went."""

    rewrite = "rewrite"
    tombstone = "tombstone"


@app.command()
def export(
    store: StorePath,
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="A new folder, or that of an earlier export.")
    ],
    shards: Annotated[Shards, typer.Option("--format", help="Of the shards.")] = Shards.mds,
    shard_size: Annotated[
        str, typer.Option(help="Most bytes of a shard before compression, such as 64MB or 64MiB.")
    ] = "64MB",
    where: Annotated[
        str | None, typer.Option(help="SQL condition over documents and metadata.")
    ] = None,
    changed: Annotated[
        Changed,
        typer.Option(help="Shards with documents that changed or went: written anew, or marked."),
    ] = Changed.rewrite,
    compression: Annotated[
        str | None, typer.Option(help="Of mds: zstd, gz, br, bz2 or snappy; zstd:6 for a level.")
    ] = None,
    run: Run = None,
    json: Json = False,
) -> None:
    """Write the kept documents of STORE into shards for training.

    Rows have doc_id, text, metadata and, where the store has them, tokens. Into the folder of an
    earlier export only the difference is written; one that was stopped goes on where it was.

    \b
    Examples:
      penstock export corpus shards
      penstock export corpus shards --format webdataset --shard-size 256MB
      penstock export corpus german --where "lang = 'de'" --changed tombstone
    """  # noqa: D301 - \b keeps lines as they are
    from penstock.cli.export import export_shards

    options = {"where": where, "changed": changed.value, "compression": compression}
    export_shards(store, out, run, shards.value, shard_size, options, as_json=json)


@app.command()
def watch(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A folder, a glob or a file of this machine.")
    ],
    store: StorePath,
    flow: Annotated[
        Path | None, typer.Option(help="A flow.py as `penstock init` writes; else a good default.")
    ] = None,
    json: Json = False,
) -> None:
    """Bring STORE in step with SOURCE, and keep it so: a saved file is found a moment later.

    Each batch of changes is a run. One that fails is tried again. Ctrl-C ends it.

    \b
    Examples:
      penstock watch docs corpus
      penstock watch docs corpus --flow flow.py --json
    """  # noqa: D301 - \b keeps lines as they are
    from penstock.cli.watch import run_watch

    run_watch(source, store, flow, as_json=json)


@app.command()
def explain(
    first: Annotated[
        str, typer.Argument(metavar="STORE|SOURCE", help="A store; or a source, as of a build.")
    ],
    second: Annotated[
        str, typer.Argument(metavar="DOC_ID|STORE", help="A document's id; or the store.")
    ],
    flow: Annotated[
        Path | None, typer.Option(help="Of a build: a flow.py; else a good default.")
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Of a build: read every file.")] = False,
    run: Run = None,
    json: Json = False,
) -> None:
    """Show a document's life, or what a build would do and why; nothing is changed.

    Of a document: its source, runs, steps, scores, verdict, cluster, chunks. Of a build: what it
    would read, compute and embed. The first argument tells which: a store, or a source.

    \b
    Examples:
      penstock explain corpus guide/start.md
      penstock explain corpus guide/start.md --run v1 --json
      penstock explain docs corpus
      penstock explain docs corpus --flow flow.py --json
    """  # noqa: D301 - \b keeps lines as they are
    from penstock.cli.explain import show_explanation

    show_explanation(first, second, flow, run, verify=verify, as_json=json)


class Preset(StrEnum):
    """What a flow is for."""

    search = "search"
    fineweb = "fineweb"
    code = "code"


@app.command()
def init(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write.")] = Path("flow.py"),
    preset: Annotated[
        Preset,
        typer.Option(help="A corpus to search, text for pretraining, or code for pretraining."),
    ] = Preset.search,
) -> None:
    """Write a commented flow.py to edit; `search` is what a build without --flow does.

    \b
    Examples:
      penstock init && penstock build docs corpus --flow flow.py
      penstock init --preset fineweb
    """  # noqa: D301 - \b keeps lines as they are
    from penstock.cli.build import write_flow

    write_flow(path, preset.value)


@app.command()
def search(
    store: StorePath,
    query: Annotated[
        str,
        typer.Argument(metavar="QUERY", help='Text; "a phrase" and pre* are understood.'),
    ],
    k: Annotated[int, typer.Option("-k", help="Hits wanted.", min=1)] = 10,
    where: Annotated[
        str | None, typer.Option(help="SQL condition over columns and metadata.")
    ] = None,
    mode: SearchMode = None,
    fusion: SearchFusion = None,
    alpha: SearchAlpha = None,
    typos: Annotated[int, typer.Option(help="Wrong letters forgiven in an unknown word.")] = 0,
    offset: Annotated[int, typer.Option(help="Better hits to leave out: pages.", min=0)] = 0,
    per_document: Annotated[
        int | None, typer.Option(help="Most hits of one document.", min=1)
    ] = None,
    facet: Annotated[
        list[str] | None, typer.Option(help="Count this column over all matches; repeatable.")
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say how it was searched, and what that may miss.")
    ] = False,
    run: Run = None,
    json: Json = False,
) -> None:
    """Find the chunks that answer QUERY best.

    Mode, fusion and alpha default to what `penstock tune` found, else hybrid, weighted, per query.

    \b
    Examples:
      penstock search corpus "parse a date" -k 3
      penstock search corpus "parse a date" --where "extension = 'py'" --mode words
      penstock search corpus '"time zone" pars*' --facet extension --per-document 1
    """  # noqa: D301 - \b keeps lines as they are
    from penstock.cli.read import show_hits

    options = {
        "mode": mode and mode.value,
        "where": where,
        "fusion": fusion and fusion.value,
        "alpha": alpha,
        "typos": typos,
        "offset": offset,
        "per_document": per_document,
        "facets": tuple(facet or ()),
        "explain": explain,
    }
    show_hits(store, query, k, run, options, as_json=json)


@app.command()
def status(
    store: StorePath,
    run: Run = None,
    sizes: Annotated[
        bool, typer.Option("--sizes", help="Show what each part takes on the disk.")
    ] = False,
    json: Json = False,
) -> None:
    """Show what STORE holds: its run, its flow, the funnel of its documents, its size."""
    from penstock.cli.read import show_status
    from penstock.cli.versions import show_sizes

    (show_sizes if sizes else show_status)(store, run, as_json=json)


@app.command()
def failures(store: StorePath, run: Run = None, json: Json = False) -> None:
    """List the rows that could not be processed, why, and what to do."""
    from penstock.cli.read import show_failures

    show_failures(store, run, as_json=json)


@app.command()
def sample(
    store: StorePath,
    rule: Annotated[
        str | None, typer.Option(help="A rule as `penstock status` names it; all by default.")
    ] = None,
    size: Annotated[int, typer.Option("-n", help="How many.", min=1)] = 5,
    run: Run = None,
    json: Json = False,
) -> None:
    """Show some of the documents that a rule dropped, with what was kept instead.

    \b
    Examples:
      penstock sample corpus --rule exact_duplicate
      penstock sample corpus -n 20 --json
    """  # noqa: D301 - \b keeps lines as they are
    from penstock.cli.read import show_sample

    show_sample(store, rule, size, run, as_json=json)


@app.command("dedup-report")
def dedup_report(
    store: StorePath,
    examples: Annotated[int, typer.Option(help="Pairs to show side by side.", min=0)] = 5,
    svg: Annotated[
        Path | None, typer.Option(help="Write the curve of thresholds as a picture.")
    ] = None,
    run: Run = None,
    json: Json = False,
) -> None:
    """Show clusters of near-duplicates, pairs near the threshold, and what others would drop.

    \b
    Examples:
      penstock dedup-report corpus
      penstock dedup-report corpus --examples 10 --svg curve.svg
    """  # noqa: D301 - \b keeps lines as they are
    from penstock.cli.dedup import show_dedup_report

    show_dedup_report(store, examples, svg, run, as_json=json)


@app.command("decontaminate-report")
def decontaminate_report(
    store: StorePath,
    examples: Annotated[int, typer.Option(help="Documents to show evidence of.", min=0)] = 5,
    run: Run = None,
    json: Json = False,
) -> None:
    """Show what decontamination loaded, indexed, scanned and found, and its self-test.

    \b
    Examples:
      penstock decontaminate-report corpus
      penstock decontaminate-report corpus --examples 20 --json
    """  # noqa: D301 - \b keeps lines as they are
    from penstock.cli.decontaminate import show_decontaminate_report

    show_decontaminate_report(store, examples, run, as_json=json)


@app.command()
def forget(
    store: StorePath,
    doc_ids: Annotated[
        list[str] | None, typer.Argument(metavar="DOC_ID...", help="Documents to take out.")
    ] = None,
    where: Annotated[
        str | None, typer.Option(help="A SQL condition over the documents, in place of ids.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Kept in the receipt.")] = "",
    undo: Annotated[
        bool, typer.Option("--undo", help="Let these documents in again with the next build.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Ask nothing; without a terminal nothing is asked.")
    ] = False,
    json: Json = False,
) -> None:
    """Take documents out of STORE although the source still lists them, and keep them out.

    They are gone from every answer at once, and from every file after `penstock gc`. The
    receipt says where they had been. Without DOC_ID and --where, lists the receipts.

    \b
    Examples:
      penstock forget corpus people/jane.md --reason "asked for on 21 November"
      penstock forget corpus --where "metadata.author = 'jane'"
      penstock forget corpus people/jane.md --undo
      penstock forget corpus
    """  # noqa: D301 - \b keeps lines as they are
    from penstock.cli.forget import run_forget, run_restore, show_receipts

    if undo:
        run_restore(store, doc_ids or [])
    elif doc_ids or where is not None:
        run_forget(store, doc_ids or [], where, reason, yes=yes, as_json=json)
    else:
        show_receipts(store, as_json=json)


@app.command()
def runs(store: StorePath, json: Json = False) -> None:
    """List the published runs of STORE: tags, what changed, sizes."""
    from penstock.cli.versions import show_runs

    show_runs(store, as_json=json)


@app.command()
def tag(
    store: StorePath,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The tag; none lists them.")
    ] = None,
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="A run's number; the last by default.")
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Forget the tag NAME.")] = False,
    json: Json = False,
) -> None:
    """Give a run a name. It stands for the run wherever one is asked for, and keeps it from gc.

    \b
    Examples:
      penstock tag corpus v1
      penstock tag corpus before-cleaning 12
      penstock tag corpus v1 --remove
    """  # noqa: D301 - \b keeps lines as they are
    from penstock.cli.versions import change_tags

    change_tags(store, name, run, remove=remove, as_json=json)


@app.command()
def diff(
    store: StorePath,
    a: Annotated[str, typer.Argument(metavar="A", help="The run before: a number or a tag.")],
    b: Annotated[
        str | None, typer.Argument(metavar="B", help="The run after; the last by default.")
    ] = None,
    size: Annotated[int, typer.Option("-n", help="Rows to show of each kind.", min=0)] = 20,
    json: Json = False,
) -> None:
    """Show what differs between two runs: documents, counts by rule, verdicts and why.

    A verdict changes with the document's content, with a step's setting, or with a neighbour:
    another document that came, went or changed.

    \b
    Examples:
      penstock diff corpus 3 4
      penstock diff corpus v1 --json
    """  # noqa: D301 - \b keeps lines as they are
    from penstock.cli.versions import show_diff

    show_diff(store, a, b, size, as_json=json)


@app.command()
def rollback(
    store: StorePath,
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's number or a tag.")],
) -> None:
    """Publish an earlier run's state again, as the newest run.

    The runs between stay, so a rollback can be rolled back. The next build goes on from here:
    what the source holds by then comes in again.

    \b
    Example:
      penstock rollback corpus v1
    """  # noqa: D301 - \b keeps lines as they are
    from penstock.cli.versions import show_rollback

    show_rollback(store, run)


@app.command()
def gc(
    store: StorePath,
    keep: Annotated[int, typer.Option(help="How many of the newest runs stay.", min=1)] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be dropped.")
    ] = False,
    json: Json = False,
) -> None:
    """Drop old runs, and every file that no kept run names. Runs with a tag stay.

    Builds do it by themselves, but keep the newest two runs, and more as long as old runs take
    less than the last one.

    \b
    Examples:
      penstock gc corpus --keep 5 --dry-run
      penstock gc corpus --keep 5
    """  # noqa: D301 - \b keeps lines as they are
    from penstock.cli.versions import show_garbage

    show_garbage(store, keep, dry_run=dry_run, as_json=json)


@app.command("eval")
def evaluate(
    store: StorePath,
    queries: Queries,
    qrels: Qrels,
    mode: SearchMode = None,
    fusion: SearchFusion = None,
    alpha: SearchAlpha = None,
    run: Run = None,
    against_run: Annotated[str | None, typer.Option(help="Compare with an earlier run.")] = None,
    against_mode: Annotated[Mode | None, typer.Option(help="Compare with another mode.")] = None,
    against_fusion: Annotated[
        Fusion | None, typer.Option(help="Compare with another fusion.")
    ] = None,
    against_alpha: Annotated[
        float | None, typer.Option(help="Compare with another alpha.", min=0, max=1)
    ] = None,
    per_query: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write each query's figures, as JSON lines.")
    ] = None,
    require: Require = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Measure search on judged queries in BEIR's layout; a hit counts for its document.

    With one or more --against-..., measure twice and compare query by query: what --against
    does not name is as for the first. The interval is a paired bootstrap's, p a randomisation
    test's.

    \b
    Examples:
      penstock eval corpus --queries queries.jsonl --qrels qrels/test.tsv --mode words
      penstock eval corpus --queries q.jsonl --qrels dev.tsv --require "ndcg@10>=0.40"
      penstock eval corpus --queries q.jsonl --qrels dev.tsv --against-run 000003
      penstock eval corpus --queries q.jsonl --qrels dev.tsv --mode hybrid --against-mode words
      penstock eval corpus --queries q.jsonl --qrels dev.tsv --alpha 0.7 --against-alpha 0.5
    """  # noqa: D301 - \b keeps lines as they are
    from penstock.cli.judge import System, show_evaluation

    new = System(run=run, mode=_value(mode), fusion=_value(fusion), alpha=alpha)
    other = new.but(
        run=against_run,
        mode=_value(against_mode),
        fusion=_value(against_fusion),
        alpha=against_alpha,
    )
    show_evaluation(store, queries, qrels, new, other, per_query, require or [], seed, as_json=json)


@app.command()
def tune(
    store: StorePath,
    queries: Queries,
    qrels: Qrels,
    folds: Annotated[int, typer.Option(help="Parts held out in turn.", min=2)] = 10,
    seed: Seed = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be chosen.")
    ] = False,
    json: Json = False,
) -> None:
    """Choose how STORE is searched from judged queries, and keep it in the store.

    Mode, fusion and alpha are chosen by cross-validation on nDCG@10. Searches use the choice
    from then on unless told otherwise. Where the gain does not show on queries that were held
    out, the default stays.

    \b
    Examples:
      penstock tune corpus --queries queries.jsonl --qrels qrels/dev.tsv
      penstock tune corpus --queries queries.jsonl --qrels qrels/dev.tsv --dry-run
    """  # noqa: D301 - \b keeps lines as they are
    from penstock.cli.judge import show_tuning

    show_tuning(store, queries, qrels, folds, seed, dry_run=dry_run, as_json=json)


app.add_typer(tokenizer, name="tokenizer")
app.add_typer(loader, name="loader")

index = typer.Typer(
    help="Check or rebuild the index of a store.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(index, name="index")


@index.command("check")
def index_check(
    store: StorePath,
    queries: Annotated[
        Path | None, typer.Option(help="JSON lines with _id and text; else made from the chunks.")
    ] = None,
    samples: Annotated[int, typer.Option(help="Queries to try.", min=1)] = 100,
    target: Annotated[float, typer.Option(help="Recall wanted.", min=0, max=1)] = 0.95,
    repair: Annotated[
        bool, typer.Option(help="Change how much searches read, where recall needs or allows it.")
    ] = True,
    json: Json = False,
) -> None:
    """Compare the search of vectors with an exact one, without and with conditions.

    Exit status 1 where the target is not reached.

    \b
    Examples:
      penstock index check corpus
      penstock index check corpus --queries queries.jsonl --target 0.98 --no-repair
    """  # noqa: D301 - \b keeps lines as they are
    from penstock.cli.index import check

    check(store, queries, samples, target, repair=repair, as_json=json)


@index.command("rebuild")
def index_rebuild(store: StorePath) -> None:
    """Build the index afresh from the chunks, and publish it as a new run.

    \b
    Example:
      penstock index rebuild corpus
    """  # noqa: D301 - \b keeps lines as they are
    from penstock.cli.index import rebuild

    rebuild(store)


def _value(choice: StrEnum | None) -> str | None:
    return None if choice is None else choice.value


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
