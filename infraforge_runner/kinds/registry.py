"""The kinds of jobs, by the name that stands in a job's spec as `action`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from infraforge_runner.kinds.deploy import Deploy
from infraforge_runner.kinds.destroy import Destroy
from infraforge_runner.kinds.kind import JobKind

KINDS: Final[Mapping[str, JobKind]] = {kind.name: kind for kind in (Deploy(), Destroy())}
