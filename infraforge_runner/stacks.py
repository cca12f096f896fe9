"""What live deploys have left standing, one file for each stack: `<data>/stacks/<region>/<stack>.json`.

A file is written when a job begins and when it has succeeded, and removed by the destroy that has. It holds what that
destroy needs: the configuration that the stack was last deployed with.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec
import structlog
from msgspec import Struct

from infraforge_runner.directory import read_json, replace_file
from infraforge_runner.presets import Serves
from infraforge_runner.rendering import Rendered, names

log = structlog.get_logger(__name__)


class Stack(Struct, frozen=True, kw_only=True):
    """`state`: `standing` after a deploy that succeeded; `uncertain` while a job runs, and after one that did not.

    `since` is when the stack was first deployed with success, None where it never was. `job_id` is the last job that
    deployed it with success, or else the last that tried; `config` and `variables` are what that job's script got: what
    fails is rolled back, by CloudFormation, to what stood before.
    """

    stack_name: str
    region: str
    preset: str
    job_id: str
    since: str | None
    state: Literal["standing", "uncertain"]
    config: dict[str, Any]
    variables: dict[str, str]
    outputs: dict[str, str] = {}
    serves: Serves | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """What it has under names of its own."""
        return names(self.config, self.region, self.stack_name)

    @property
    def rendered(self) -> Rendered:
        return Rendered(self.config, self.region, self.stack_name, self.variables, self.names)


class Stacks:
    """The files under one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def of(cls, job: Path) -> Stacks:
        """Those of the data folder that this job's directory is in."""
        return cls(job.parent.parent / "stacks")

    def get(self, region: str, stack_name: str) -> Stack | None:
        """None where no deploy of ours has left anything, or nothing that can be read."""
        return _read(self._path(region, stack_name))

    def all(self) -> list[Stack]:
        """By region and name."""
        found = map(_read, sorted(self._folder.glob("*/*.json")))
        return [stack for stack in found if stack is not None]

    def put(self, stack: Stack) -> None:
        """Raises OSError."""
        path = self._path(stack.region, stack.stack_name)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(path, msgspec.json.encode(stack))

    def remove(self, region: str, stack_name: str) -> None:
        """Raises OSError."""
        self._path(region, stack_name).unlink(missing_ok=True)

    def _path(self, region: str, stack_name: str) -> Path:
        # Both have been held against their patterns: letters, digits and hyphens.
        return self._folder / region / f"{stack_name}.json"


def _read(path: Path) -> Stack | None:
    try:
        return read_json(path, Stack)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        log.warning("what is known of a stack can't be read", path=str(path), error=str(error))
        return None
