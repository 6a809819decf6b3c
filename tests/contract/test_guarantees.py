"""The page of guarantees: what it names exists, and what belongs on it is there."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from tests.faults.mutations.__main__ import PAGE, PROMISES
from tests.faults.mutations.mutation import MUTATIONS
from tests.faults.simulation import mutations as simulated

ROOT: Final = Path(__file__).parents[2]
TEST: Final = re.compile(r"`(tests/[\w/]+\.py)::(\w+)(?:::\w+)?`")
MODULE: Final = re.compile(r"`((?:imgbuilder|tests)/[\w/]+(?:\.py)?)`")
PARSER: Final = re.compile(r"^`(imgbuilder\.[\w.]+)`$")
TRIED: Final = re.compile(r"`(\w+)`: ")
HEADINGS: Final = re.compile(r"^### (\d)\. ", re.MULTILINE)


def sections() -> dict[str, str]:
    """The text below each heading, by heading."""
    parts = re.split(r"^#+ (.+)$", PAGE.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def rows(heading: str) -> Iterator[list[str]]:
    """The cells of each row of the tables below a heading, less the tables' heads."""
    lines = [line for line in sections()[heading].splitlines() if line.startswith("|")]
    for line, following in pairwise([*lines, ""]):
        if not line.startswith("|---") and not following.startswith("|---"):
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


@cache
def names_in(path: str) -> frozenset[str]:
    """The names of what a file of tests has at its top."""
    file = ROOT / path
    if not file.is_file():
        return frozenset()
    found = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return frozenset(found)


def test_all_tests_that_are_named_exist() -> None:
    """A guarantee whose test is gone is a promise."""
    found = TEST.findall(PAGE.read_text())
    assert len(found) > 150
    assert [(path, name) for path, name in found if name not in names_in(path)] == []


def test_all_modules_that_are_named_exist() -> None:
    """So that a reader finds the mechanism."""
    found = MODULE.findall(PAGE.read_text())
    assert len(found) > 30
    assert [path for path in found if not (ROOT / path).exists()] == []


def test_each_promise_has_a_bound_mechanisms_and_tests() -> None:
    """All six of them."""
    promises = [heading for heading in sections() if re.match(r"\d\. ", heading)]
    assert [heading[0] for heading in promises] == list("123456")
    for heading in promises:
        assert "**Bound.**" in sections()[heading]
        table = list(rows(heading))
        assert len(table) >= 5
        assert [row for row in table if len(row) != 3 or not TEST.search(row[2])] == []


def test_each_parser_exists_and_each_fuzz_target_is_that_of_a_parser() -> None:
    """A parser that is renamed, and a target that nobody has listed, are noticed."""
    table = list(rows("Parsers"))
    for parser, _, targets in table:
        match = PARSER.match(parser)
        assert match, parser
        module, _, name = match[1].rpartition(".")
        assert resolved(module, name), parser
        assert TEST.findall(targets), parser
    listed = {name for _, _, targets in table for _, name in TEST.findall(targets)}
    written = {
        name
        for path in (ROOT / "tests" / "fuzz").glob("test_*.py")
        for name in names_in(str(path.relative_to(ROOT)))
        if name.startswith("test_")
    }
    assert listed == written


def resolved(module: str, name: str) -> Any:
    """What is called so in a module, or in a class of a module."""
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError:
        outer, _, cls = module.rpartition(".")
        return getattr(getattr(importlib.import_module(outer), cls), name)


def test_each_mutation_was_tried_and_caught() -> None:
    """The table is that of a run with all that there are, and each promise has some."""
    tried = {TRIED.match(what)[1]: (promise, caught) for promise, what, caught in rows("Mutations")}  # type: ignore[index]  # a row without name fails here
    assert tried.keys() == {mutation.name for mutation in MUTATIONS} | {
        mutation.name for mutation in simulated.MUTATIONS
    }
    assert [name for name, (_, caught) in tried.items() if not caught] == []
    for mutation in MUTATIONS:
        promise, caught = tried[mutation.name]
        assert promise == str(mutation.promise)
        assert mutation.test in caught
    assert {promise for promise, _ in tried.values()} == set("123456")
    assert PROMISES.keys() <= {promise for mutation in simulated.MUTATIONS for promise in mutation.breaks}
