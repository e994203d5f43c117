"""A finding as an object is what its schema says, and the schema knows every cause and every word."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import pytest
from support.dialogue import Capture
from support.labelled import LABELLED
from support.packets import encapsulate, frame, segment, tunnelled, vxlan, with_field

from fixer.datapath.pipeline import Pipeline
from fixer.findings.causes import WRONG_OUTER
from fixer.findings.finding import Finding, Place, Role, Verdict
from fixer.findings.sentences import findings
from fixer.findings.tally import Tally, new_census

SCHEMA = json.loads((resources.files("fixer.data") / "finding.schema.json").read_text())
KINDS = {"string": str, "integer": int, "array": list, "object": dict}


def check(value: Any, schema: dict[str, Any], where: str = "finding") -> None:
    """What of JSON Schema is used here."""
    assert value in schema.get("enum", [value]), f"{where}: {value!r}"
    if "type" in schema:
        assert type(value) is KINDS[schema["type"]], f"{where}: {value!r}"
    if schema.get("type") == "integer":
        assert schema.get("minimum", value) <= value <= schema.get("maximum", value), where
    if schema.get("type") == "string":
        assert len(value) >= schema.get("minLength", 0), where
    if schema.get("type") == "array":
        for item in value:
            check(item, schema["items"], f"{where}[]")
    if schema.get("type") == "object":
        assert schema["additionalProperties"] is False
        assert set(value) == set(schema["required"]) == set(schema["properties"]), where
        for name, item in value.items():
            check(item, schema["properties"][name], f"{where}.{name}")


def of(packets: list[bytes], *, plain: bool = False) -> list[Finding]:
    pipeline, census, tally = Pipeline(ports=[4789], plain=plain), new_census(), Tally()
    for packet in packets:
        census.add(pipeline.examine(bytearray(packet)), None, packet)
    tally.finish(census)
    return findings(tally, [4789], plain=plain)


def objects(found: list[Finding]) -> list[dict[str, Any]]:
    return json.loads(json.dumps([one.as_object() for one in found]))


@pytest.mark.parametrize("name", LABELLED)
def test_each_finding_is_as_its_schema_says(name: str) -> None:
    capture = Capture()
    LABELLED[name][0](capture)
    for one in objects(capture.findings(LABELLED[name][3])):
        check(one, SCHEMA)


def test_findings_of_headers_and_files_are_too() -> None:
    zero6, header = tunnelled("VERIFIES", "ZERO", outer=6), with_field(tunnelled("VERIFIES", "ZERO"), 10, 1)
    never = encapsulate(vxlan(frame(with_field(segment(4, "tcp"), 36, 0))), "ZERO")
    seen = {
        one["cause"]
        for packets in ([zero6], [header], [never], [], [segment(4, "tcp")], [tunnelled("VERIFIES", "WRONG")])
        for one in objects(of(packets))
        if not check(one, SCHEMA)  # type: ignore[func-returns-value]
    }
    assert {"outer_zero_over_ipv6", "outer_ip_header", "never_computed", "empty", "no_vxlan"} <= seen


def test_the_schema_knows_every_word() -> None:
    known = {name: set(schema["enum"]) for name, schema in SCHEMA["properties"].items() if "enum" in schema}
    assert known["verdict"] == set(map(str, Verdict))
    assert known["role"] == set(map(str, Role))
    assert known["taken"] == set(map(str, Place))
    assert {f"outer_{name.name.lower()}" for name in WRONG_OUTER} <= known["cause"]


def test_a_check_that_finds_nothing_would_be_none() -> None:
    (one,) = objects(of([segment(4, "tcp")], plain=True))
    for wrong in ({"verdict": "guilty"}, {"packets": -1}, {"text": ""}, {"more": 1}, {"evidence": [{}]}):
        with pytest.raises(AssertionError):
            check(one | wrong, SCHEMA)
