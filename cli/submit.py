"""`onelayer submit`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def submit(
    runs: Annotated[list[Path], typer.Argument(metavar="DIR", help="directories of evaluations, runs or studies")],
    output: Annotated[Path, typer.Option(metavar="FILE", help="the archive, for example mine.tar; replaced if it is there")],
) -> None:
    """Pack evaluations with their patches, manifests and hashes in one archive, for a leaderboard that others keep.

    Every complete evaluation below the directories goes in, with its samples, its patch and the manifest of the run it comes from. The same
    evaluations always make the same bytes. `onelayer verify FILE` does the checks that the leaderboard's maintainers do.

    \b
    Examples:
      onelayer submit runs/quickstart --output quickstart.tar
      onelayer submit runs/eval-math500 runs/layer3 --output mine.tar
    """
    from ..common.text import counted, printable
    from ..studies.submissions.archive import gather, pack

    claims = gather(runs)
    submission = pack(claims, output)
    for claim in claims:
        seen = claim.manifest
        print(
            f"{claim.directory}: {printable(seen.policy)} on {printable(seen.split)}, {seen.size_text} x {seen.sampled.samples} + 1 samples"
        )
    size = sum(file.size for file in submission.files.values())
    print(f"submission: {output}, {counted(len(claims), 'evaluation')}, {size / 2**20:.1f} MiB")
