"""The pages of `onelayer view`: from what lies in a directory of runs and a query to HTML. Everything shown is escaped text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from concurrent.futures import TimeoutError as NotYet
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from threading import Lock
from typing import Any

import jinja2

from ...common.errors import UserError
from ...common.text import shown
from ...evals.records import Decoding
from ...studies.leaderboard.build import build
from ...studies.leaderboard.records import Entry as Standing
from ...studies.leaderboard.records import Leaderboard, Table
from ...studies.store import Entry, Kind, State
from ..page import TEMPLATES
from ..page import Table as TextTable
from . import episode_page, item_matrix, profile_items, profile_page
from .episode_page import LONGEST, NotFound, Query, number, page_of, url
from .item_matrix import Order, Which
from .profile_page import HeatMap, Measure, Profile
from .run_index import Index, Signature, name_of, section

RUNS_PAGE = 200
ITEMS_PAGE = 100
MOST_POLICIES = 24
"""Columns of the matrix: more are narrowed by name."""
PATIENCE = 1.5
"""Seconds that a page waits for figures that are being computed; it shows them later if they come later."""
MOMENT = 0.2
"""The same for figures that it can do without."""


@dataclass
class Board:
    """The leaderboard of the directory, computed in the background when evaluations come or go."""

    root: Path
    worker: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    _of: Signature | None = None
    _future: Future[Leaderboard] | None = None
    _last: Leaderboard | None = None

    def get(self, signature: Signature) -> tuple[Leaderboard | None, bool]:
        """The newest there is, and whether a newer one is being computed."""
        if self._future is None or (self._of != signature and self._future.done()):
            self._of, self._future = signature, self.worker.submit(build, self.root)
        with suppress(NotYet, UserError):  # the directory may be gone for the moment
            self._last = self._future.result(0 if self._last else PATIENCE)
        return self._last, not self._future.done()


@dataclass
class Later:
    """Figures that a page shows when they are there: computed in the background, each once for a leaderboard."""

    worker: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    _of: Leaderboard | None = None
    _futures: dict[object, Future[Any]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def get(self, board: Leaderboard | None, jobs: Mapping[object, Callable[[], Any]]) -> dict[object, Any]:
        """What is done of these within a moment."""
        with self._lock:
            if board is not self._of:
                for future in self._futures.values():
                    future.cancel()
                self._of, self._futures = board, {}
            asked = {key: self._futures.get(key) or self.worker.submit(job) for key, job in jobs.items()}
            self._futures |= asked
        wait(asked.values(), MOMENT)
        return {key: future.result() for key, future in asked.items() if future.done() and not future.cancelled()}


class Site:
    """All pages of a directory of runs."""

    def __init__(self, root: Path):
        self.root = root
        self.index = Index(root)
        self._board = Board(root)
        self._later = Later()
        self.pages: dict[str, Callable[[Query], str]] = {
            "": self.runs,
            "run": self.run,
            "episodes": self.episodes,
            "curves": self.curves,
            "profiles": self.profiles,
            "items": self.items,
        }

    @cached_property
    def _templates(self) -> jinja2.Environment:
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(TEMPLATES),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
        )
        environment.globals |= {"url": url, "shown": shown, "number": number}
        environment.filters["shown"] = shown
        return environment

    def render(self, template: str, **texts: object) -> str:
        """A page as HTML."""
        return self._templates.get_template(template).render(root=self.root.resolve().name or "/", **texts)

    def _problem(self, error: object) -> str:
        """A message with paths as the pages name them."""
        return shown(str(error).replace(f"{self.root}/", ""))

    def _told(self, tell: Callable[[], str]) -> str:
        """A figure in a sentence, or the reason why there is none."""
        try:
            return tell()
        except (UserError, OSError, ValueError) as error:
            return f"none, since {self._problem(error)}."

    def runs(self, query: Query) -> str:
        """Everything in the directory; what is broken with the reason."""
        entries, wanted = self.index.entries(), query.get("q", "").casefold()
        rows = [self._row(name, entry) for name, entry in entries.items()]
        found = [row for row in rows if wanted in f"{row['name']} {row['what']} {row['entry'].state}".casefold()]
        page, pages = page_of(query, len(found), RUNS_PAGE)
        return self.render(
            "view_runs.html.j2",
            rows=found[page * RUNS_PAGE : (page + 1) * RUNS_PAGE],
            count=len(entries),
            found=len(found),
            broken=[(name, self._problem(entry.problem)) for name, entry in entries.items() if entry.problem],
            q=query.get("q", ""),
            page=page,
            pages=pages,
        )

    def _row(self, name: str, entry: Entry) -> dict[str, Any]:
        found, recipe = entry.manifest, self.index.recipe(name, entry)
        done = wanted = None
        result = ""
        if entry.kind is Kind.RUN and entry.state is State.UNFINISHED:
            done, wanted = found.get("steps_done"), section(recipe, "trainer").get("steps")
        if entry.kind is Kind.EVALUATION and entry.state is State.UNFINISHED:
            done, wanted = found.get("samples"), found.get("wanted")
        if "sampled" in found:
            rate = found["sampled"]["pass_rate"]
            result = f"{rate['mean']:.3f} [{rate['low']:.3f}, {rate['high']:.3f}]"
        elif isinstance(seconds := section(found, "cost").get("seconds"), int | float):
            result = f"{seconds:,.0f} s"
        seed = section(recipe, "trainer").get("seed") if entry.kind is Kind.RUN else None
        what = shown(name_of(entry, recipe)) + (shown(f", seed {seed}") if seed is not None else "")
        return {"name": name, "entry": entry, "what": what, "result": result, "done": done, "wanted": wanted}

    def _entry(self, query: Query) -> tuple[str, Entry]:
        """What a query names. Names are those that were found, so none leads out of the directory."""
        name = query.get("run", "")
        if (entry := self.index.entries().get(name)) is None:
            raise NotFound(f"{shown(name)}: there is no such run here, or no longer")
        return name, entry

    def run(self, query: Query) -> str:
        """One run or evaluation: its curves and its manifest."""
        from .curve_page import run_charts

        name, entry = self._entry(query)
        problem, charts = entry.problem, []
        if entry.kind is Kind.RUN:
            try:
                charts = run_charts(self.index.curve(name, entry))
            except (UserError, OSError) as error:
                problem = str(error)
        inside = {other: found for other, found in self.index.entries().items() if other.startswith(f"{name}/")} if name != "." else {}
        manifest = dict(_flat(entry.manifest if entry.state is State.COMPLETE else self.index.recipe(name, entry)))
        return self.render(
            "view_run.html.j2",
            row=self._row(name, entry),
            problem=self._problem(problem),
            charts=charts,
            inside=[self._row(other, found) for other, found in inside.items()],
            manifest={shown(key): shown(value)[:LONGEST] for key, value in manifest.items()},
            has_episodes=entry.kind in (Kind.RUN, Kind.EVALUATION),
        )

    def episodes(self, query: Query) -> str:
        """The episodes of a run or evaluation by pages, and one of them in full."""
        name, entry = self._entry(query)
        try:
            there = self.index.episodes(name, entry)
        except (UserError, OSError) as error:
            return self.render("episodes_none.html.j2", name=name, problem=self._problem(error))
        what = shown(name_of(entry, self.index.recipe(name, entry)))
        return self.render("episodes.html.j2", name=name, what=what, entry=entry, **episode_page.texts(there, query))

    def curves(self, query: Query) -> str:
        """The learning curves of all training runs, as far as they have come."""
        from .curve_page import X, Y, domain_charts, trained_policies

        runs, problems = [], []
        for name, entry in self.index.entries().items():
            if entry.kind is not Kind.RUN or query.get("q", "").casefold() not in name.casefold():
                continue
            try:
                points = self.index.curve(name, entry)
            except (UserError, OSError) as error:
                problems.append(self._problem(error))
                continue
            if points:
                runs.append((name, entry, self.index.recipe(name, entry), points))
        there = {key: label for key, label in Y.items() if any(run[3][-1].get(key) is not None for run in runs)}
        x, y = _one_of(query, "x", X), _one_of(query, "y", there or Y)
        domains = domain_charts(trained_policies(runs), x, y)
        return self.render("view_curves.html.j2", domains=domains, problems=problems, xs=X, ys=there, x=x, y=y, q=query.get("q", ""))

    def profiles(self, query: Query) -> str:
        """Contribution profiles: heat maps of all, and one as a chart with intervals."""
        board, computing = self._board.get(self.index.signature())
        decoding, measure = Decoding(_one_of(query, "decoding", list(Decoding))), Measure(_one_of(query, "measure", list(Measure)))
        found = profile_page.profiles(board, decoding, measure) if board else []
        chosen = next((profile for profile in found if profile.id == query.get("profile")), found[0] if found else None)
        maps = profile_page.heat_maps(found, measure)
        best, agreements = self._of_items(board, chosen, maps, decoding) if board and chosen else ("", [])
        return self.render(
            "profile.html.j2",
            computing=computing,
            maps=maps,
            best=best,
            agreements=agreements,
            measured=any(not profile.is_published for profile in found),
            chosen=chosen,
            chart=profile_page.chart(chosen, measure, self._episodes_link if chosen.has_items else lambda entry: "") if chosen else None,
            table=profile_page.table(chosen, measure, decoding, board.level) if chosen and board else None,
            decoding=decoding,
            measure=measure,
            decodings=list(Decoding),
            measures=list(Measure),
            level=board.level if board else 0.95,
        )

    def _of_items(
        self, board: Leaderboard, chosen: Profile, maps: Sequence[HeatMap], decoding: Decoding
    ) -> tuple[str, list[TextTable | None]]:
        """The best layer of the chosen profile, and for each map how far its profiles agree, where the items tell."""
        pairs = [[] if one.is_published else profile_items.pairs([profile for profile, _ in one.rows], chosen) for one in maps]
        rows = [{(a.id, b.id, decoding): (a, b) for a, b in found[: profile_items.MOST_PAIRS]} for found in pairs]
        jobs: dict[object, Callable[[], Any]] = {}
        if chosen.has_items:
            jobs[chosen.id, decoding] = partial(self._told, partial(profile_items.best_layer_text, self.root, chosen, decoding))
        for key, pair in (item for found in rows for item in found.items()):
            jobs[key] = partial(profile_items.agreement, self.root, pair, decoding)
        done = self._later.get(board, jobs)
        tables = [
            profile_items.agreement_table([done[key] for key in found if key in done], len(there), board.level) if there else None
            for found, there in zip(rows, pairs, strict=True)
        ]
        return done.get((chosen.id, decoding), "being computed.") if chosen.has_items else "", tables

    def items(self, query: Query) -> str:
        """Who solved what: items against policies."""
        board, computing = self._board.get(self.index.signature())
        decoding, order = Decoding(_one_of(query, "decoding", list(Decoding))), Order(_one_of(query, "order", list(Order)))
        which = Which(_one_of(query, "which", list(Which)))
        tables = [table for table in board.tables if table.items and not table.averaged] if board else []
        chosen = next((table for table in tables if table.digest == query.get("suite")), tables[0] if tables else None)
        everybody = [entry for entry in chosen.entries if entry.directories and entry.standing(decoding)] if chosen else []
        policies = [entry for entry in everybody if query.get("q", "").casefold() in policy_name(entry).casefold()]
        found, problem, rows, together = None, "", [], {}
        if board and chosen and policies:
            try:
                found = item_matrix.matrix(self.root, chosen, policies[:MOST_POLICIES], decoding)
                rows = found.rows(which, order)
                together = self._together(board, found.policies, everybody, decoding)
            except (UserError, OSError, ValueError) as error:
                problem = self._problem(error)
        page, pages = page_of(query, len(rows), ITEMS_PAGE)
        return self.render(
            "matrix.html.j2",
            computing=computing,
            tables=[(table.digest, _table_name(table, tables)) for table in tables],
            chosen=chosen,
            matrix=found,
            names=[policy_name(entry) for entry in policies[:MOST_POLICIES]],
            rows=[(found.items[row], found.rate_PI[:, row]) for row in rows[page * ITEMS_PAGE : (page + 1) * ITEMS_PAGE]] if found else [],
            listed=len(rows),
            left_out=len(policies) - MOST_POLICIES,
            together=together,
            problem=problem,
            decoding=decoding,
            decodings=list(Decoding),
            order=order,
            orders=list(Order),
            which=which,
            whiches=list(Which),
            q=query.get("q", ""),
            page=page,
            pages=pages,
            link=lambda entry, item: url("episodes", run=entry.directories[0], part=decoding.value, item=item),
        )

    def _together(self, board: Leaderboard, shown: Sequence[Standing], everybody: Sequence[Standing], decoding: Decoding) -> dict[str, str]:
        """Label and text: how far the solved sets overlap, and what a vote over the layers comes to."""
        layers = item_matrix.voters(shown)
        single = item_matrix.reference(layers or shown, everybody)
        rest = (single, policy_name(single), decoding)
        tell = {
            "overlap of solved sets": partial(item_matrix.overlap_text, self.root, shown, *rest),
            "vote over layers": partial(item_matrix.vote_text, self.root, layers, *rest),
        }
        keys = {label: (label, decoding, single.id, *(entry.id for entry in shown)) for label in tell}
        done = self._later.get(board, {keys[label]: partial(self._told, say) for label, say in tell.items()})
        return {label: done.get(key, "being computed.") for label, key in keys.items()}

    def _episodes_link(self, entry: Standing) -> str:
        return url("episodes", run=entry.directories[0]) if entry.directories else ""


def policy_name(entry: Standing) -> str:
    """Algorithm and trained set; what was not trained by its name."""
    return f"{entry.algorithm} {entry.trained_set}" if entry.algorithm else entry.trained_set


def _table_name(table: Table, tables: Sequence[Table]) -> str:
    alike = [other for other in tables if other.suite == table.suite]
    return f"{table.suite}, {table.size}" + (f" ({table.digest[:8]})" if len(alike) > 1 else "")


def _one_of(query: Query, name: str, allowed: Sequence[str] | Mapping[str, str]) -> str:
    """A choice; the first where the query makes none that there is."""
    return found if (found := query.get(name, "")) in allowed else next(iter(allowed))


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Sequence[tuple[str, Any]]:
    """Nested mappings as one with dotted keys."""
    found: list[tuple[str, Any]] = []
    for key, value in tree.items():
        found += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else [(f"{prefix}{key}", value)]
    return found
