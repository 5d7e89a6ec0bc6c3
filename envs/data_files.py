"""Records of JSON-lines files and of data sets of the hub, and how a file is divided into splits: by a hash of the text alone."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..common import hub
from ..common.errors import NotAtHand, UserError
from ..common.reading import LARGEST_LINES, parse_json, read_bytes
from .items import Split

TRAINING_FILE = {"train": range(1, 10), "validation": range(0, 1)}  # tenths of the hash space
OWN_FILE = {"train": range(3, 10), "validation": range(2, 3), "test": range(0, 2), "all": range(0, 10)}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Record:
    """One line of a file or row of a data set, and where it stands (for error messages)."""

    place: str
    number: int  # from 1
    values: Mapping[str, Any]


def require_split(split: str, there: Iterable[str], suite: str) -> None:
    """Raises UserError for a split that is not there."""
    if split not in there:
        raise UserError(f"{suite} has no split {split!r}; it has {', '.join(there)}")


def hub_rows(name: str, config: str | None, split: str, suite: str) -> tuple[Iterable[Record], str, Mapping[str, range]]:
    """The rows that a split of a data set is taken from, how the ids begin that they do not give, and which tenths make each split.

    A data set without a split `validation` gives a tenth of its training rows for it.
    """
    there = hub_splits(name, config)
    tenths = {kind: range(10) for kind in there}
    if "train" in there and "validation" not in there:
        tenths |= TRAINING_FILE
    require_split(split, tenths, suite)
    kind = split if split in there else "train"
    return read_hub(name, config, kind, "save it as a .jsonl file"), f"{name}/{kind}", tenths


def warn_of_skipped(found: Split) -> None:
    """Tell the user what of a split's data cannot be graded; nothing where all can."""
    if found.skipped:
        some = ", ".join(f"{one.id} ({one.reason})" for one in found.skipped[:3])
        more = ", ..." if len(found.skipped) > 3 else ""
        _log.warning("%s: %s: %s%s; env.unreadable=refuse makes an error of it", found.name, found.size_text, some, more)


def read_lines(path: Path) -> list[Record]:
    """The JSON objects of a JSON-lines file; empty lines are passed over. Raises UserError with file and line."""
    try:
        lines = read_bytes(path, LARGEST_LINES).removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; name an existing .jsonl file") from error
    records = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            values = parse_json(line.decode())
        except UnicodeDecodeError as error:
            raise UserError(f"{path}:{number}: not UTF-8 (byte {error.start}); save the file as UTF-8") from error
        except ValueError as error:
            raise UserError(f"{path}:{number}: not JSON ({error}); each line is one JSON object") from error
        if not isinstance(values, dict):
            raise UserError(f"{path}:{number}: a {type(values).__name__}, but each line is one JSON object")
        records.append(Record(str(path), number, values))
    if not records:
        raise UserError(f"{path}: the file is empty; each line is one JSON object")
    return records


def _datasets(name: str, otherwise: str) -> Any:
    try:
        hub.settle()
        import datasets
    except ImportError as error:
        raise NotAtHand(f"{name}: not at hand; {otherwise}, or pip install datasets to fetch it from the hub") from error
    return datasets


def read_hub(name: str, config: str | None, split: str, otherwise: str) -> Iterator[Record]:
    datasets = _datasets(name, otherwise)
    try:
        rows = datasets.load_dataset(name, config, split=split)
    except Exception as error:  # many kinds: no network, no such data set, no such split
        raise NotAtHand(f"{name}: the hub does not give its split {split} ({_one_line(error)}); {otherwise}") from error
    return (Record(f"{name}/{split}", number, row) for number, row in enumerate(rows, 1))


def hub_splits(name: str, config: str | None = None) -> list[str]:
    try:
        return list(_datasets(name, "save it as a .jsonl file").get_dataset_split_names(name, *filter(None, [config])))
    except UserError:
        raise
    except Exception as error:
        raise NotAtHand(f"{name}: the hub does not list its splits ({_one_line(error)}); check the name and the network") from error


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
