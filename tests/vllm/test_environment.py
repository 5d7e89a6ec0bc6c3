"""constraints-vllm.txt is installed without dependencies, so nothing else would miss what it leaves out."""

from __future__ import annotations

from importlib.metadata import requires, version

from packaging.requirements import Requirement


def test_it_has_all_that_onelayer_needs():
    wanted = [Requirement(text) for text in requires("onelayer") or []]
    plain = [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    assert plain and [str(one) for one in plain if not one.specifier.contains(version(one.name))] == []
