"""The page that lists the contract with the tests that prove it: complete, and true to what is served."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
from google.protobuf import descriptor_pb2

import imgbuilder.pb

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "contract.md"
PACKAGES: Final = ("builder", "contentservice", "wsman")
TEST: Final = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")

Field = descriptor_pb2.FieldDescriptorProto


class Row:
    """A row of a table: where it is, and what stands in its cells, the last of which is for tests."""

    def __init__(self, number: int, line: str, heading: str) -> None:
        self.number = number
        self.heading = heading
        *self.cells, self.tests = [cell.strip() for cell in line.strip().strip("|").split(" | ")]

    def __repr__(self) -> str:
        return f"line {self.number}: {self.cells[0]}"


def rows() -> Iterator[Row]:
    """All rows of all tables of the page."""
    heading, lines = "", PAGE.read_text().splitlines()
    for number, line in enumerate(lines, start=1):
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif line.startswith("|") and not re.match(r"\|-|.*\| Test \|$", line):
            yield Row(number, line, heading)


@cache
def names_of_tests(path: str) -> frozenset[str]:
    """The names of the tests in a file; none if there is no such file."""
    file = ROOT / path
    if not file.is_file():
        return frozenset()
    return frozenset(
        node.name
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    )


def test_every_row_has_tests_and_they_exist() -> None:
    """A line of the contract without a test is a promise, and one with a test that is gone as well."""
    found = list(rows())
    assert len(found) > 200
    assert [row for row in found if not TEST.search(row.tests)] == []
    missing = [
        (row, f"{path}::{name}")
        for row in found
        for path, name in TEST.findall(row.tests)
        if name not in names_of_tests(path)
    ]
    assert missing == []


def test_no_cell_for_tests_has_anything_else() -> None:
    """What is not written as a test would not be looked for."""
    assert [row for row in rows() if TEST.sub("", row.tests).replace("<br>", "")] == []


# --- the wire -------------------------------------------------------------------------------------------------


@cache
def files() -> dict[str, Any]:
    """The descriptors that the service serves, by package."""
    data = (Path(imgbuilder.pb.__file__).parent / "descriptors.binpb").read_bytes()
    return {file.package: file for file in descriptor_pb2.FileDescriptorSet.FromString(data).file}


def spelled(name: str, package: str) -> str:
    """A full name, without the package where it is this one."""
    return name.lstrip(".").removeprefix(f"{package}.")


def type_of(field: Any, package: str, entries: dict[str, Any]) -> str:
    """The type of a field, as proto files spell it."""
    if field.type_name in entries:
        key, value = entries[field.type_name].field
        return f"map<{type_of(key, package, {})}, {type_of(value, package, {})}>"
    scalar = Field.Type.Name(field.type).removeprefix("TYPE_").lower()
    kind = spelled(field.type_name, package) if field.type_name else scalar
    if field.label == Field.LABEL_REPEATED:
        return f"repeated {kind}"
    return f"optional {kind}" if field.proto3_optional else kind


def messages(package: str) -> dict[str, str]:
    """What stands on the page of each message and enum of a package."""
    found: dict[str, str] = {}

    def add_enum(enum: Any, prefix: str) -> None:
        values = ", ".join(f"`{value.name} = {value.number}`" for value in enum.value)
        found[f"`{spelled(f'{prefix}.{enum.name}', package)}` (enum)"] = values

    def add(message: Any, prefix: str) -> None:
        full = f"{prefix}.{message.name}"
        entries = {f".{full}.{one.name}": one for one in message.nested_type if one.options.map_entry}
        fields = []
        for field in message.field:
            text = f"`{field.name} = {field.number}: {type_of(field, package, entries)}`"
            if field.HasField("oneof_index") and not field.proto3_optional:
                text += f" (oneof `{message.oneof_decl[field.oneof_index].name}`)"
            fields.append(text)
        found[f"`{spelled(full, package)}`"] = ", ".join(fields) or "none"
        for one in message.nested_type:
            if not one.options.map_entry:
                add(one, full)
        for enum in message.enum_type:
            add_enum(enum, full)

    for message in files()[package].message_type:
        add(message, package)
    for enum in files()[package].enum_type:
        add_enum(enum, package)
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_messages_are_as_described(package: str) -> None:
    """Every name, number and type of what is served stands on the page, and nothing else."""
    described = {
        row.cells[0]: row.cells[1]
        for row in rows()
        if row.heading == f"Package `{package}`" and "messages_are_as_described" in row.tests
    }
    assert described == messages(package)


@pytest.mark.parametrize("package", PACKAGES)
def test_calls_are_as_described(package: str) -> None:
    """So does every call with its messages."""
    described = {
        row.cells[0]: (row.cells[1], row.cells[2])
        for row in rows()
        if row.heading == f"Package `{package}`" and "calls_are_as_described" in row.tests
    }
    served = {}
    for service in files()[package].service:
        for method in service.method:
            response = f"`{spelled(method.output_type, package)}`"
            served[f"`{service.name}.{method.name}`"] = (
                f"`{spelled(method.input_type, package)}`",
                f"stream {response}" if method.server_streaming else response,
            )
    assert described == served
