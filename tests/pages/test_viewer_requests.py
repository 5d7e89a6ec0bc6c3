"""What the server of `onelayer view` refuses: names that lead elsewhere, other hosts and methods, and texts that a page must not obey."""

from __future__ import annotations

import html
import re
import socket
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
import viewed
from hypothesis import given
from hypothesis import strategies as st
from made_runs import make_evaluation, outcomes
from served_pages import Ask, serving, texts

from onelayer.cli.main import main
from onelayer.common.errors import UserError
from onelayer.common.text import shown
from onelayer.pages.report import write_report
from onelayer.pages.viewer.episode_page import url
from onelayer.pages.viewer.server import Server
from onelayer.studies.study_report import StudyReport


@pytest.mark.parametrize("text", viewed.HOSTILE)
def test_texts_of_models_stay_text(text: str, all_of_it: Ask) -> None:
    at = viewed.HOSTILE.index(text)
    _, page = all_of_it(url("episodes", run="hostile", open=f"greedy/0/item {at} {text}"))
    body = page[page.index("<body>") :]
    for name, count in {"script": 1, "style": 0, "h1": 1, "img": 0, "b": 0}.items():
        assert len(re.findall(rf"<{name}[\s>]", body)) == count, name
    assert not re.search(r"\son\w+=", re.sub(r'"[^"]*"|>[^<]*<', "", body))
    assert shown(text) in html.unescape(body)
    assert not re.search("[\x00\x1b\x07\u202e\U000e0041]", page)
    if "\x1b" in text:
        assert "\\x1b[31mred\\x1b]0;owned\\x07 \\u202eDLROW\\u202c \\x00 \\U000e0041" in page


@given(st.text())
def test_shown_text_has_nothing_unseen_and_is_otherwise_the_same(text: str) -> None:
    found = shown(text)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", found)
    if all(character.isprintable() or character == "\n" for character in text):
        assert found == text
    found.encode()


ESCAPES = ["../secret", "..", "/etc", "base/../../secret", "%2e%2e/secret", "base\x00", ".", "", "grpo", "link", "C:\\", "a" * 5000]


@pytest.mark.parametrize("name", ESCAPES)
@pytest.mark.parametrize("page", ["run", "episodes"])
def test_no_name_leads_out_of_the_directory(page: str, name: str, ask: Ask, tmp_path: Path) -> None:
    make_evaluation(tmp_path / "secret", outcomes(0.5, 1, items=4))
    make_evaluation(tmp_path / "runs" / "base", outcomes(0.5, 1, items=4))
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "secret")
    assert ask(f"/{page}?run=base")[0] == 200
    status, text = ask(f"/{page}?run={quote(name)}")
    assert status == 404 and "there is no such run here" in text
    assert "secret" not in texts(ask("/")[1])


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "/../view.js", "/view.js/..", "/templates/view.html.j2", "/run/base", "/%00", "/episodes/"]
)
def test_no_file_is_served_by_its_path(path: str, all_of_it: Ask) -> None:
    assert all_of_it(path)[0] == 404


def test_methods_that_change_things_are_refused(all_of_it: Ask) -> None:
    assert {all_of_it("/", method)[0] for method in ("POST", "PUT", "DELETE", "PATCH")} == {501}
    assert all_of_it("/", "HEAD") == (200, "")
    assert all_of_it("/?" + "a=1&" * 200)[0] == 400


HOSTS = {"127.0.0.1": True, "localhost:9000": True, "[::1]:8612": True, "192.168.1.7:80": True, "127.0.0.1.": True}
HOSTS |= {"evil.example": False, "evil.example:8612": False, "localhost.evil.example": False, "": False, "127.0.0.1@evil.example": False}
HOSTS |= {"127.0.0.1.nip.example": False, "a b": False, "[evil]": False}


@pytest.mark.parametrize("host", HOSTS)
def test_a_name_that_is_not_this_machine_is_refused(host: str, all_of_it: Ask) -> None:
    assert all_of_it("/", Host=host)[0] == (200 if HOSTS[host] else 403)


def test_the_policy_lets_nothing_in_and_nothing_out(made: Path) -> None:
    server = serving(made)
    with server as ask:
        for path in ("/", "/episodes?run=hostile", "/nope"):
            _, page = ask(path)
            policy = server.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy and "unsafe" not in policy and "script-src 'self'" in policy
            assert server.headers["X-Content-Type-Options"] == "nosniff"
            outside = [link for link in re.findall(r'(?:href|src|action)="([^"]*)"', page) if not re.match(r"/(?!/)|data:,$", link)]
            assert outside == []
        _, page = ask("/")
        tag = server.headers["ETag"]
        assert ask("/", If_None_Match=tag) == (304, "")


def test_a_report_with_scripts_of_its_own_is_kept_apart(tmp_path: Path, study: Callable[..., StudyReport]) -> None:
    write_report(study(recipe="<script>owned</script>"), tmp_path / "ours")
    (tmp_path / "ours/study.yaml").write_text("name: ours\n")
    server = serving(tmp_path)
    with server as ask:
        status, page = ask("/report?run=ours")
        policy = server.headers["Content-Security-Policy"]
        assert status == 200 and policy.endswith("sandbox allow-scripts") and "default-src 'none'" in policy and "connect-src" not in policy
        assert "<script>owned" not in page


def test_a_page_that_fails_says_so_and_the_server_goes_on(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from onelayer.pages.viewer.views import items, runs

    def fail(*_: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(items.item_matrix, "matrix", fail)
    monkeypatch.setattr(runs, "page_of", fail)
    assert ask("/")[0] == ask("/")[0] == 500
    assert capsys.readouterr().err.count("RuntimeError: a defect") == 1
    assert ask("/curves")[0] == 200


def test_what_can_not_be_served_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["view", str(tmp_path), "--port", str(port)]) == 2
        assert f"127.0.0.1:{port}: the port is taken" in capsys.readouterr().err
    assert main(["view", str(tmp_path / "none")]) == 2
    assert "no such directory" in capsys.readouterr().err
    assert main(["view", str(tmp_path), "--port", "70000"]) == 2
    capsys.readouterr()
    with pytest.raises(UserError, match="not an address of this machine"):
        Server("203.0.113.1", 0, tmp_path)


def test_the_script_is_served_and_is_one_file(all_of_it: Ask) -> None:
    status, script = all_of_it("/view.js")
    assert status == 200 and '"use strict"' in script
    assert not re.search(r"innerHTML\s*=[^=]|eval\(|https?:|new Function|document\.write", script)
