"""Mechanisms that keep words out of logs, and credentials out of everything."""

from __future__ import annotations

import re

from imgbuilder.core import censoring, references
from imgbuilder.core.censoring import Censor
from imgbuilder.core.secrets import Secret
from imgbuilder.registry import http
from imgbuilder.standalone.git import addresses
from imgbuilder.telemetry import redaction
from tests.faults.mutations.mutation import Patch, caught_by


@caught_by("contract/service/test_logs.py::test_names_of_images_are_censored", promise=5)
def no_censoring_at_all(patch: Patch) -> None:
    """Output goes into the log as it is."""
    patch.setattr(Censor, "feed", lambda _, data: data)


@caught_by(
    "unit/core/test_censoring.py::test_the_result_is_the_same_under_any_chunking_and_contains_no_word",
    promise=5,
)
def nothing_is_held_back(patch: Patch) -> None:
    """A word that comes in two pieces goes out."""
    patch.setattr(Censor, "_beginning_of_word", lambda _, text, __: len(text))


@caught_by(
    "unit/core/test_censoring.py::test_references_and_their_repositories_are_censored_longest_first",
    promise=5,
)
def repositories_are_not_censored(patch: Patch) -> None:
    """Only whole references are censored, not the names of their repositories."""
    patch.setattr(censoring, "repository_of", lambda ref: ref)


@caught_by(
    "unit/core/test_censoring.py::test_the_result_is_the_same_under_any_chunking_and_contains_no_word",
    promise=5,
)
def words_made_by_removing_others(patch: Patch) -> None:
    """What a removed word leaves on its two sides may make another."""
    patch.setattr(Censor, "_across_seam", lambda *_, **__: (False, 0))


@caught_by("unit/wsman/test_client.py::test_start_tells_where_the_log_is", promise=5)
def secrets_that_show(patch: Patch) -> None:
    """A secret prints as what it is."""
    patch.setattr(Secret, "__repr__", lambda self: self._value)
    patch.setattr(Secret, "__str__", lambda self: self._value)


@caught_by("unit/telemetry/test_redaction.py::test_credentials_in_texts_are_hidden", promise=5)
def no_redaction_of_what_is_logged(patch: Patch) -> None:
    """What is logged is logged as it is."""
    patch.setattr(redaction, "_RULES", ())


@caught_by(
    "contract/registry/test_faults.py::test_a_redirect_carries_no_credentials_to_another_host", promise=5
)
def redirects_that_carry_credentials(patch: Patch) -> None:
    """All hosts count as one."""
    patch.setattr(http, "origin_of", lambda _: ("https", "any", None))


@caught_by("contract/registry/test_faults.py::test_a_redirect_to_plain_http_is_not_followed", promise=5)
def plain_http_anywhere(patch: Patch) -> None:
    """A request may be redirected to anywhere."""
    patch.setattr("imgbuilder.registry.endpoints.Endpoints.allows", lambda *_: True)


@caught_by("contract/service/test_bad_input.py::test_userinfo_in_a_reference_is_not_repeated", promise=5)
def userinfo_in_errors(patch: Patch) -> None:
    """An error repeats a reference with the password that it should not have."""
    patch.setattr(references, "_USERINFO", re.compile("(?!)"))


@caught_by("unit/standalone/test_git.py::test_credentials_are_shown_to_the_server_only", promise=5)
def passwords_of_repositories_that_show(patch: Patch) -> None:
    """The address of a repository is shown with its password."""
    patch.setattr(addresses, "_join", lambda parts: parts.geturl())
