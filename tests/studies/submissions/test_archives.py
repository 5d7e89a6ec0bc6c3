"""What is packed is the same bytes each time, and what is unpacked cannot reach beyond its directory or size."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from forged_submissions import LAYER, RUN, edit, member, tar

from onelayer.common.errors import UserError
from onelayer.evals.records import MANIFEST, read_manifest
from onelayer.evals.samples import SAMPLES, read_samples, samples_schema, write_rows
from onelayer.studies.leaderboard.marks import VERIFIED
from onelayer.studies.store import PATCH, SUBMISSION
from onelayer.studies.submissions.archive import Claim, gather, pack, unpack
from onelayer.studies.submissions.refusal import Reason, Refused
from onelayer.studies.submissions.verification import Tools, verify

HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "an absolute path": (lambda p: tar(p, [member("/tmp/evil.json")]), "no place in a submission"),
    "a path that climbs": (lambda p: tar(p, [member("run-0/../../evil.json")]), "no place in a submission"),
    "another file": (lambda p: tar(p, [member("run-0/run.json.sh")]), "no place in a submission"),
    "a name with escapes": (lambda p: tar(p, [member("\x1b[31m.json")]), "'\\\\x1b[31m.json' has no place"),
    "a link": (lambda p: tar(p, [member("run-0/run.json", type=tarfile.SYMTYPE, link="/etc/passwd")]), "no regular file"),
    "a hard link": (lambda p: tar(p, [member("run-0/run.json", type=tarfile.LNKTYPE, link="/etc/passwd")]), "no regular file"),
    "a device": (lambda p: tar(p, [member("run-0/run.json", type=tarfile.CHRTYPE)]), "no regular file"),
    "a long name": (lambda p: tar(p, [member("a" * 300)], format=tarfile.GNU_FORMAT), "no regular file"),
    "an extended header": (lambda p: tar(p, [member("\u00fc")], format=tarfile.PAX_FORMAT), "no regular file"),
    "a mark of its own": (lambda p: tar(p, [member(f"evaluation-0/{VERIFIED}")]), "marks are given here"),
    "a file twice": (lambda p: tar(p, [member(SUBMISSION), member(SUBMISSION)]), "twice"),
    "a manifest without end": (lambda p: tar(p, [member(SUBMISSION, b" " * (17 << 20))]), "its manifests are 17825792 bytes"),
    "more than there is": (lambda p: (tar(p, [member(SUBMISSION, b"0" * 9999)]), p.write_bytes(p.read_bytes()[:5000])), "not copied whole"),
    "compressed": (lambda p: tar_gz(p), "no submission"),
    "no archive": (lambda p: p.write_bytes(b"PK\x03\x04" + bytes(range(256)) * 8), "no submission"),
    "nothing": (lambda p: p.write_bytes(b""), f"no {SUBMISSION}"),
}


def tar_gz(path: Path) -> None:
    with tarfile.open(path, "w:gz") as archive:
        header, data = member(SUBMISSION)
        archive.addfile(header, io.BytesIO(data))


@pytest.mark.parametrize("name", HOSTILE)
def test_an_archive_can_not_reach_beyond_its_directory(name: str, tmp_path: Path) -> None:
    make, words = HOSTILE[name]
    place = tmp_path / "deep" / "place"
    make(tmp_path / "hostile.tar")
    with pytest.raises(UserError) as caught:
        unpack(tmp_path / "hostile.tar", place)
    assert words in str(caught.value)
    outside = {path.name for path in tmp_path.rglob("*") if not path.is_relative_to(place)}
    assert outside <= {"hostile.tar", "deep"} and not Path("/tmp/evil.json").exists()


def test_records_that_unfold_without_end_are_not_read(opened: Path, tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal texts are stored once: what is small as a file may be large as records."""
    row = read_samples(opened / LAYER / SAMPLES)[0].model_dump()
    row["steps"][0]["prompt"] = "a" * (1 << 20)
    path = opened / LAYER / SAMPLES
    data = write_rows(path, [row] * 100, samples_schema())
    assert len(data) < 1 << 20
    edit(opened / LAYER / MANIFEST, lambda found: found.update(samples_sha256=hashlib.sha256(data).hexdigest()))
    monkeypatch.setattr("onelayer.studies.submissions.recorded.TEXT_LIMIT", 50 << 20)
    monkeypatch.setattr("onelayer.studies.submissions.recorded.read_columns", lambda path: pytest.fail("it was read"))
    claim = Claim(opened / LAYER, read_manifest(opened / LAYER), [opened / RUN / PATCH])
    with pytest.raises(Refused, match="unfolds to 104") as caught:
        verify(claim, tools)
    assert caught.value.reason is Reason.BROKEN


def test_the_same_evaluations_are_the_same_bytes(runs: Path, archive: Path, tmp_path: Path) -> None:
    pack(gather([runs / "layer" / "test", runs / "base"]), tmp_path / "again.tar")
    assert (tmp_path / "again.tar").read_bytes() == archive.read_bytes()
    with pytest.raises(UserError, match="name the directory of its run"):
        shutil.copytree(runs / "layer" / "test", tmp_path / "alone")
        gather([tmp_path / "alone"])
    assert len(gather([tmp_path / "alone", runs / "layer"])) == 2
    with tarfile.open(archive) as plain:
        assert {(one.mtime, one.uid, one.uname, one.mode) for one in plain.getmembers()} == {(0, 0, "", 0o644)}
