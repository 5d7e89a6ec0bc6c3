"""`onelayer view`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def view(
    runs: Annotated[Path, typer.Argument(metavar="RUNS_DIR", help="directory of runs")] = Path("runs"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free")] = 8612,
    host: Annotated[str, typer.Option(help="address to listen on; with another, others on the network can read the runs")] = "127.0.0.1",
) -> None:
    """Show a directory of runs in a browser, also while runs train: learning curves, layer profiles, solved items, episodes.

    The server listens on this machine alone, writes nothing, and makes no request to the network. Ctrl-C ends it.

    \b
    Examples:
      onelayer view runs
      onelayer view runs/quickstart --port 0
      ssh -L 8612:127.0.0.1:8612 MACHINE onelayer view runs
    """
    from ..pages.viewer.server import Server

    with Server(host, port, runs) as server:
        print(f"{runs} at {server.url} (Ctrl-C ends it)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
