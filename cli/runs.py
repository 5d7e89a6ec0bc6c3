"""`onelayer runs`: a directory of runs as a database."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..common.text import counted, printable
from .arguments import AsJson, print_json

if TYPE_CHECKING:
    from ..studies.store import StoreEntry

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="List, show, compare and delete runs and evaluations.")

ROOT = typer.Argument(metavar="RUNS_DIR", help="directory of runs")
LONG = 60


@app.command("list")
def list_runs(
    root: Annotated[Path, ROOT] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object a line, for other programs")] = False,
) -> None:
    """List everything in a directory of runs: training runs, evaluations and studies, finished or not.

    An entry that cannot be read is listed as broken, with the reason.

    \b
    Examples:
      onelayer runs list
      onelayer runs list runs/quickstart
      onelayer runs list --json
    """
    from ..studies import store

    entries = store.scan(root)
    if as_json:
        for entry in entries:
            print(json.dumps({"directory": str(entry.directory), "kind": entry.kind, "state": entry.state, "problem": entry.problem}))
        return
    from rich.text import Text

    from ..common.console import Console, Table

    table = Table("directory", "kind", "state", "what", "result", box=None)
    for entry in entries:
        cells = [_shown(entry.directory.relative_to(root)), entry.kind, entry.state, _what(entry), _result(entry)]
        table.add_row(*(Text(printable(cell)) for cell in cells))
    console = Console()
    console.print(table)
    for entry in entries:
        if entry.problem:
            console.print(Text(f"broken: {printable(entry.problem)}"), soft_wrap=True)
    broken = sum(bool(entry.problem) for entry in entries)
    print(f"{counted(len(entries), 'entry', 'entries')} in {root}" + (f", {broken} broken" if broken else ""))


@app.command("show")
def show_run(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="directory of a run, an evaluation or a study")],
    item: Annotated[str | None, typer.Option(metavar="ID", help="of an evaluation: show this item's episodes")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the report of a study with C(k), the manifest of a run or evaluation, or the episodes of one item.

    \b
    Examples:
      onelayer runs show runs/quickstart
      onelayer runs show runs/layer3
      onelayer runs show runs/eval-arithmetic --item arithmetic-test-0
    """
    from ..common.errors import UserError
    from ..evals.protocol import flatten
    from ..studies import store

    entry = store.open_entry(run)
    if as_json and item is None:
        print_json({"directory": run, "kind": entry.kind, "state": entry.state, "problem": entry.problem, "manifest": entry.manifest})
        return
    if item is not None:
        if entry.kind is not store.DirectoryKind.EVALUATION or entry.state is not store.State.COMPLETE:
            raise UserError(f"{run}: no complete evaluation, so it has no episodes to show; leave out --item")
        return _show_item(entry, item, as_json)
    print(f"{run}: {entry.kind}, {entry.state}{': ' + printable(entry.problem) if entry.problem else ''}")
    if entry.kind is store.DirectoryKind.STUDY and entry.state is store.State.COMPLETE:
        return _show_study(run)
    for key, value in flatten(entry.manifest).items():
        print(f"  {key}: {printable(value if isinstance(value, str) else json.dumps(value))}")


@app.command("diff")
def diff_runs(
    first: Annotated[Path, typer.Argument(metavar="RUN", help="a run or an evaluation")],
    second: Annotated[Path, typer.Argument(metavar="RUN", help="another of the same kind")],
) -> None:
    """Show where two runs or two evaluations differ: settings, versions, cost, figures, and the items that one solves more often.

    \b
    Example:
      onelayer runs diff runs/layer3 runs/layer5
    """
    from ..common.errors import UserError
    from ..evals.protocol import flatten
    from ..studies import store

    one, two = store.open_entry(first), store.open_entry(second)
    if one.kind is not two.kind:
        raise UserError(f"{first} and {second} are of different kinds ({one.kind}, {two.kind}); name two of a kind")
    a, b = flatten(one.manifest), flatten(two.manifest)
    differ = [key for key in dict.fromkeys([*a, *b]) if a.get(key) != b.get(key)]
    for key in differ:
        print(f"{key}\n  - {printable(_short(a.get(key)))}\n  + {printable(_short(b.get(key)))}")
    if not differ:
        print("no difference")
    if one.kind is store.DirectoryKind.EVALUATION and one.state is two.state is store.State.COMPLETE:
        _diff_items(first, second)


@app.command("delete")
def delete_runs(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="directories of runs, evaluations or studies")],
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
) -> None:
    """Delete runs, evaluations or studies, with all that is in them.

    The command asks before it deletes. It refuses a directory that is no run, evaluation or study, and one that another process
    writes to.

    \b
    Examples:
      onelayer runs delete runs/layer3
      onelayer runs delete runs/trial-1 runs/trial-2 --yes
    """
    import shutil
    import sys

    from ..common.errors import UserError
    from ..common.files import owned
    from ..studies import store

    entries = [store.open_entry(run) for run in runs]
    if linked := next((run for run in runs if run.is_symlink()), None):
        raise UserError(f"{linked}: a link; name the directory itself")
    for entry in entries:
        inside = [other for other in store.scan(entry.directory) if other.directory != entry.directory]
        size = sum(path.lstat().st_size for path in entry.directory.rglob("*") if not path.is_dir())
        print(f"{entry.directory}: {entry.kind}, {entry.state}, {size / 2**20:.1f} MiB" + (f", with {len(inside)} below" if inside else ""))
    if not yes:
        if not sys.stdin.isatty():
            raise UserError("deleting asks first, and nobody is there to answer; give --yes")
        if not typer.confirm(f"delete {counted(len(entries), 'directory', 'directories')}?"):
            print("nothing deleted")
            return
    for entry in entries:
        with owned(entry.directory):
            shutil.rmtree(entry.directory)
        print(f"deleted {entry.directory}")


def _what(entry: StoreEntry) -> str:
    from ..evals.protocol import algorithm_of

    found = entry.manifest
    if entry.kind == "run" and "config" in found:
        trainer = found["config"].get("trainer", {})
        return f"{algorithm_of(trainer)} {found.get('trained_set')} seed {trainer.get('seed')} on {found.get('split')}"
    if entry.kind == "run":
        return f"{counted(found['steps_done'], 'step')} done" if "steps_done" in found else ""
    if entry.kind == "group":
        return ", ".join(member["suite"] for member in found.get("suites", []))
    return f"{found['policy']} on {found['split']}" if "policy" in found else ""


def _result(entry: StoreEntry) -> str:
    found = entry.manifest
    if "sampled" in found:
        rates = (found[decoding]["pass_rate"] for decoding in ("sampled", "greedy"))
        return "  ".join(f"{rate['mean']:.3f} [{rate['low']:.3f}, {rate['high']:.3f}]" for rate in rates)
    if "wanted" in found:
        return f"{found['samples']} of {found['wanted']} samples"
    return f"{found['cost']['seconds']:.0f} s" if "cost" in found else ""


def _shown(path: Path) -> str:
    return "." if path == Path() else str(path)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= LONG * 3 else f"{text[: LONG * 3 - 3]}..."


def _show_study(directory: Path) -> None:
    from ..common.console import Console
    from ..pages.report import render_table
    from ..studies.study_report import read_report

    Console().print(render_table(read_report(directory)))
    print(f"page: {directory / 'report.html'}")


def _show_item(entry: StoreEntry, item: str, as_json: bool) -> None:
    from ..common.errors import UserError
    from ..evals.samples import SAMPLES, Sample, read_rows

    rows = read_rows(entry.directory / SAMPLES, item)
    if not rows:
        raise UserError(f"{entry.directory}: has no item {item!r}")
    if as_json:
        print_json(rows)
        return
    for sample in map(Sample.model_validate, rows):
        print(f"--- {printable(sample.item)} {sample.decoding} {sample.sample}: {printable(sample.verdict)}, reward {sample.reward:g}")
        for step in sample.steps:
            for name, text in (("prompt", step.prompt), ("response", step.response), ("action", step.action)):
                if name != "action" or text != step.response:
                    print(f"{name}:", *("  " + printable(line) for line in text.split("\n")), sep="\n")
        if sample.ending:
            print("ending:", *("  " + printable(line) for line in sample.ending.split("\n")), sep="\n")


def _diff_items(first: Path, second: Path) -> None:
    from ..studies import store

    with store.connect(first, [store.open_entry(first), store.open_entry(second)]) as connection:
        for decoding in ("sampled", "greedy"):
            rows = connection.execute(
                "with rate as (select directory, item, avg((verdict = 'correct')::int) as solved "
                "from samples where decoding = ? group by all) "
                "select a.item, a.solved, b.solved from rate a join rate b using (item) "
                "where a.directory = ? and b.directory = ? and a.solved != b.solved order by abs(a.solved - b.solved) desc, a.item",
                [decoding, str(first), str(second)],
            ).fetchall()
            print(f"{decoding}: {counted(len(rows), 'item')} solved more or less often")
            for item, mine, theirs in rows[:20]:
                print(f"  {printable(item)}: {mine:.2f} {theirs:.2f}")
