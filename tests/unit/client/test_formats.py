"""The forms in which answers are printed."""

from __future__ import annotations

from typing import Any

import pytest

from imgbuilder.client.errors import InvalidOptionError, OutputError
from imgbuilder.client.formats import Text, parse_form

DOCUMENT: dict[str, Any] = {
    "builds": [{"ref": "a:1", "startedAt": "2026"}, {"ref": "ü:2", "startedAt": "2027"}],
    "total": 2,
}


@pytest.mark.parametrize(
    ("form", "printed"),
    [
        ("jsonpath=$.builds[*].ref", "a:1\nü:2"),
        ("jsonpath={.builds[*].ref}", "a:1\nü:2"),
        ("jsonpath=builds[0].ref", "a:1"),
        ("jsonpath=.total", "2"),
        ("jsonpath=$.builds[?(@.ref=='a:1')]", '{"ref": "a:1", "startedAt": "2026"}'),
        ("jsonpath=nothing", ""),
        ("template={{ builds|length }} of {{ total }}", "2 of 2"),
        ("template={% for build in builds %}{{ build.ref }};{% endfor %}", "a:1;ü:2;"),
        ("template={{ builds[0]|json }}", '{"ref": "a:1", "startedAt": "2026"}'),
        ("template=", ""),
    ],
)
def test_what_is_asked_for_is_printed(form: str, printed: str) -> None:
    """JSONPaths also as kubectl takes them; each match on a line."""
    parsed = parse_form(form)
    assert not isinstance(parsed, Text)
    assert parsed.render(DOCUMENT) == printed


def test_json_is_one_line() -> None:
    """For programs that read lines."""
    parsed = parse_form("json")
    assert not isinstance(parsed, Text)
    assert parsed.render({"a": "ü\n"}) == '{"a": "ü\\n"}'


@pytest.mark.parametrize(
    ("form", "fault"),
    [
        ("yaml", "'yaml' is none of text, json, jsonpath=EXPRESSION or template=TEMPLATE"),
        ("jsonpath", "'jsonpath' is none of"),
        ("json=a", "'json=a' is none of"),
        ("jsonpath=$.builds[", "jsonpath '$.builds[': "),
        ("jsonpath=", "jsonpath '': "),
        ("template={{ ref", "template: "),
        ("template={% if %}", "template: "),
    ],
)
def test_forms_that_there_are_not(form: str, fault: str) -> None:
    """One line that says what there is."""
    with pytest.raises(InvalidOptionError) as caught:
        parse_form(form)
    assert str(caught.value).startswith(f"--output: {fault}")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "template",
    [
        "{{ nothing }}",
        "{{ builds[7].ref }}",
        "{{ total / 0 }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ builds.append(1) }}",
        "{% include 'etc/passwd' %}",
    ],
)
def test_templates_that_go_wrong(template: str) -> None:
    """What is not there is an error; a template reaches nothing but its document."""
    parsed = parse_form(f"template={template}")
    assert not isinstance(parsed, Text)
    with pytest.raises(OutputError):
        parsed.render(DOCUMENT)
