"""The forms in which answers are printed: as text, as JSON, a JSONPath of it, or a Jinja2 template over it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from imgbuilder.client.errors import InvalidOptionError, OutputError

OPTION: Final = "--output"
FORMS: Final = "text, json, jsonpath=EXPRESSION or template=TEMPLATE"


class Form(Protocol):
    """A form for documents that programs read."""

    def render(self, document: Mapping[str, Any]) -> str:
        """*document* in this form, without a line feed at its end.

        :raises OutputError: if it can't be had.
        """
        ...


@dataclass(frozen=True, slots=True)
class Text:
    """What people read. It is written by those who know what they say."""


@dataclass(frozen=True, slots=True)
class Json:
    """One line of JSON."""

    def render(self, document: Mapping[str, Any]) -> str:
        """See `Form`."""
        return as_json(document)


@dataclass(frozen=True, slots=True)
class JsonPath:
    """What a JSONPath finds, each on a line: texts as they are, the rest as JSON."""

    path: Any

    def render(self, document: Mapping[str, Any]) -> str:
        """See `Form`."""
        import jsonpath  # noqa: PLC0415  # only for this

        try:
            found = self.path.findall(document)
        except jsonpath.JSONPathError as error:
            raise OutputError(f"{OPTION} jsonpath: {_first_line(error)}") from error
        return "\n".join(one if isinstance(one, str) else as_json(one) for one in found)


@dataclass(frozen=True, slots=True)
class Template:
    """A template with the document's fields as its variables."""

    template: Any

    def render(self, document: Mapping[str, Any]) -> str:
        """See `Form`."""
        try:
            text = self.template.render(document)
        except Exception as error:  # templates are programs: they raise what they like
            raise OutputError(f"{OPTION} template: {_first_line(error)}") from error
        return str(text)


def parse_form(text: str) -> Text | Form:
    """The form that *text* names.

    JSONPaths may be written as kubectl takes them, ``{.builds[*].ref}``, or without the ``$`` of their beginning.

    :raises InvalidOptionError: if it names none, or its expression can't be used.
    """
    kind, given, rest = text.partition("=")
    if text == "text":
        return Text()
    if text == "json":
        return Json()
    if kind == "jsonpath" and given:
        return JsonPath(_path(rest))
    if kind == "template" and given:
        return Template(_template(rest))
    raise InvalidOptionError(OPTION, f"{text!r} is none of {FORMS}")


def as_json(document: Any) -> str:
    """*document* as one line."""
    return json.dumps(document, ensure_ascii=False, separators=(", ", ": "))


def _path(text: str) -> Any:
    import jsonpath  # noqa: PLC0415  # only for this

    written = text.strip()
    if written.startswith("{") and written.endswith("}"):
        written = written[1:-1].strip()
    if not written.startswith("$"):
        written = f"${written}" if written.startswith((".", "[")) else f"$.{written}"
    try:
        return jsonpath.compile(written)
    except jsonpath.JSONPathError as error:
        raise InvalidOptionError(OPTION, f"jsonpath {text!r}: {_first_line(error)}") from error


def _template(text: str) -> Any:
    from jinja2 import StrictUndefined, TemplateSyntaxError  # noqa: PLC0415  # only for this
    from jinja2.sandbox import ImmutableSandboxedEnvironment  # noqa: PLC0415

    # No HTML is made of it, so nothing is escaped as if it were.
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
    environment.filters["json"] = as_json
    try:
        return environment.from_string(text)
    except TemplateSyntaxError as error:
        raise InvalidOptionError(OPTION, f"template: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
