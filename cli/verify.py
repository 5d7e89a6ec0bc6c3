"""`onelayer verify`"""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .arguments import AsJson, print_json

if TYPE_CHECKING:
    from ..studies.submissions.verification import Checked, Tools


def verify(
    what: Annotated[Path, typer.Argument(metavar="FILE_OR_DIR", help="a submission, or a directory of evaluations, runs or studies")],
    regenerate: Annotated[int, typer.Option(metavar="N", min=0, help="make N samples of each decoding again, drawn at random")] = 0,
    seed: Annotated[int | None, typer.Option(help="of the drawing  [default: another each time, which is printed]")] = None,
    unpack: Annotated[Path | None, typer.Option(metavar="DIR", help="of a submission: a new directory for it once it is verified")] = None,
    model: Annotated[
        str | None, typer.Option(help="the base, a directory or a hub name, where the configuration names another place")
    ] = None,
    environment: Annotated[
        str | None, typer.Option(metavar="ID", help="an environment that a submission may have imported, besides the built-in ones")
    ] = None,
    suite: Annotated[
        str | None, typer.Option(help="a file or data set that a submission may have read, besides the built-in suites")
    ] = None,
    chat_template: Annotated[
        Path | None, typer.Option(metavar="FILE", help="a chat template that a submission may have used, besides that of the base")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check every hash and count of a submission or of evaluations here, and grade every response again.

    With --regenerate N, samples of each evaluation, sampled and greedy, are also made again from base, patch and seed, and their tokens
    compared: only that finds responses that were written by somebody else, with all hashes computed anew. Samples that were lost to failing
    environments are played again, too. A fault is printed with its reason, and the exit code is 2. A directory of
    evaluations here, and what is unpacked, gets the mark that the leaderboard shows.

    \b
    Examples:
      onelayer verify theirs.tar
      onelayer verify theirs.tar --regenerate 20 --unpack runs/theirs
      onelayer verify runs/quickstart --regenerate 5
    """
    from ..agents.config import ModelConfig
    from ..agents.policy import Base, load_base
    from ..common.errors import UserError
    from ..studies.submissions.verification import Tools
    from .config import read_text

    if unpack and what.is_dir():
        raise UserError(f"--unpack: {what} is a directory already; leave it out")
    if not what.exists():
        raise UserError(f"{what}: no such file or directory; name what `onelayer submit` wrote, or a directory of runs")
    bases: dict[str, Base] = {}

    def base_of(config: ModelConfig) -> Base:
        """Loaded once for all evaluations."""
        key = config.model_dump_json()
        if key not in bases:
            bases[key] = load_base(config)
        return bases[key]

    tools = Tools(
        load_base=base_of,
        foreign=not what.is_dir(),
        model=model,
        environment=environment,
        suite=suite,
        chat_template=read_text(chat_template, "a chat template").removesuffix("\n") if chat_template else None,
    )
    seed = secrets.randbelow(2**32) if seed is None else seed
    if what.is_dir():
        return _check(what, tools, regenerate, seed, keep=True, as_json=as_json)
    with _unpacked(what, unpack) as directory:
        try:
            _check(directory, tools, regenerate, seed, keep=unpack is not None, as_json=as_json)
        except UserError as error:
            raise UserError(str(error).replace(f"{directory}/", "")) from error
    if unpack and not as_json:
        print(f"unpacked: {unpack}")


def _check(directory: Path, tools: Tools, regenerate: int, seed: int, *, keep: bool, as_json: bool) -> None:
    """Verify all that lies in a directory, and print what came of it. keep: leave marks."""
    from ..studies.leaderboard.marks import VERIFIED
    from ..studies.store import SUBMISSION
    from ..studies.submissions.archive import gather, read_submission
    from ..studies.submissions.refusal import Refused
    from ..studies.submissions.verification import check_files, write_mark
    from ..studies.submissions.verification import verify as verify_claim

    submitted = (directory / SUBMISSION).is_file()
    claims = check_files(directory, read_submission(directory)) if submitted else gather([directory])
    if regenerate and not as_json:
        print(f"made again: {regenerate} samples of each decoding of each evaluation, drawn with --seed {seed}")
    found = []
    for claim in claims:
        try:
            checked = verify_claim(claim, tools, regenerate, seed)
        except Refused:
            if keep:
                (claim.directory / VERIFIED).unlink(missing_ok=True)
            raise
        if keep:
            write_mark(checked)
        found.append(checked)
        if not as_json:
            _tell(checked)
    if as_json:
        print_json({"seed": seed, "evaluations": [_told(checked) for checked in found]})


def _told(checked: Checked) -> dict[str, str | int]:
    """One evaluation for `--json`."""
    seen = checked.claim.manifest
    names = {"directory": checked.claim.directory.name, "policy": seen.policy, "split": seen.split, "mark": checked.mark}
    return names | {"graded": checked.graded, "lost": checked.lost, "regenerated": checked.regenerated}


def _tell(checked: Checked) -> None:
    from ..common.text import printable

    seen = checked.claim.manifest
    lost = f", {checked.lost} lost to failing environments" if checked.lost else ""
    again = f", {checked.regenerated} made again with the same tokens" if checked.regenerated else ""
    what = printable(f"{checked.claim.directory.name}: {seen.policy} on {seen.split}")
    print(f"{what}: {checked.graded} samples graded again{lost}{again}: {checked.mark}")


@contextmanager
def _unpacked(archive: Path, target: Path | None) -> Iterator[Path]:
    """The files of a submission, beside `target`, where they go if nothing is raised; without one they are removed."""
    from ..common.files import check_new, make_writable
    from ..studies.submissions.archive import unpack

    if target:
        check_new(target)
        make_writable(target.parent)
    with tempfile.TemporaryDirectory(prefix=".verify-", dir=target.parent if target else None) as folder:
        directory = Path(folder, "submission")
        directory.mkdir()
        unpack(archive, directory)
        yield directory
        if target:
            if target.is_dir():
                target.rmdir()
            shutil.move(directory, target)
