"""How many files and connections the process may have open."""

from __future__ import annotations

import resource
from typing import Final

import structlog

log = structlog.get_logger(__name__)

WANTED: Final = 65_536
"""Files and connections; far more than clients may have connections by default, and all that is needed beside them."""


def allow_many_descriptors() -> None:
    """Raise the soft limit, which is 1,024 on many systems, as far as is wanted and the hard one lets.

    The soft limit is that low for programs with select(2). Go's programs raise it at their start, too.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED if hard == resource.RLIM_INFINITY else min(WANTED, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError) as error:  # macOS has further limits
        log.debug("the number of open files stays limited", limit=soft, reason=str(error))
