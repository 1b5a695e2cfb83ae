"""Names for runs: a tag is a small file in the store, and keeps its run from being dropped."""

from __future__ import annotations

import re

from penstock.errors import ConfigError, StoreError
from penstock.store.manifest import run_name, run_names
from penstock.store.places import Place, delete_files, flush, known_files, replace_file

_NAME = re.compile(r"[A-Za-z_][\w.-]{0,99}")


def read_tags(store: Place) -> dict[str, str]:
    """The run of each tag, by the tag's name."""
    tags = (store / "runs/tags").glob("*")
    named = {tag.name: tag.read_text().strip() for tag in tags if not tag.name.endswith(".tmp")}
    return dict(sorted(named.items()))


def set_tag(store: Place, name: str, run: str | int) -> str:
    """Give a run a name, which moves there if it was another's; atomic and durable.

    Returns:
        The run's own name.

    Raises:
        ConfigError: The tag's name is not one.
        StoreError: There is no such run.
    """
    if not _NAME.fullmatch(name) or name.endswith(".tmp"):
        raise ConfigError(
            "tag", name, "must begin with a letter, and have letters, digits, '.', '_' and '-' only"
        )
    found = find_run(store, run)
    folder = store / "runs/tags"
    known = known_files(store / "runs")
    folder.mkdir(exist_ok=True)
    replace_file(folder / name, found.encode() + b"\n")
    flush(store / "runs", known)
    if found not in run_names(store):  # dropped since it was found
        remove_tag(store, name)
        raise StoreError(str(store), f"run {found} was just dropped; see penstock runs")
    return found


def remove_tag(store: Place, name: str) -> None:
    """Forget a tag; its run is as any other then.

    Raises:
        StoreError: There is no such tag.
    """
    if name not in read_tags(store):
        raise StoreError(str(store), f"there is no tag {name!r}; {_those(store)}")
    delete_files(store, [f"runs/tags/{name}"])


def find_run(store: Place, run: str | int) -> str:
    """A published run's name from its number or a tag.

    Raises:
        ConfigError: It is neither a number nor the name of a tag.
        StoreError: There is no such run.
    """
    try:
        name = run_name(run)
    except ValueError as err:
        tags = read_tags(store)
        if run not in tags:
            problem = f"must be the number of a run or a tag; {_those(store)}; see penstock runs"
            raise ConfigError("run", run, problem) from err
        name = tags[str(run)]
    names = run_names(store)
    if name not in names:
        raise StoreError(str(store), f"there is no run {name}; there are {', '.join(names)}")
    return name


def _those(store: Place) -> str:
    tags = read_tags(store)
    return f"its tags are {', '.join(tags)}" if tags else "it has no tags"
