"""Records of the stacks that live deploys have created: `<data>/stacks/<region>/<stack>.json`.

A record is written when a job begins and when it has succeeded, and removed by a destroy that has succeeded. It holds
what that destroy needs: the configuration that the stack was last deployed with.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec
import structlog
from msgspec import Struct

from infraforge_runner.infraforge.presets import ServedModel
from infraforge_runner.infraforge.rendering import RenderedStack, resource_names
from infraforge_runner.jobs.directory import read_json, replace_file

log = structlog.get_logger(__name__)


class StackRecord(Struct, frozen=True, kw_only=True):
    """`state`: `standing` after a deploy that succeeded; `uncertain` while a job runs, and after one that did not.

    `since` is when the stack was first deployed with success, None where it never was. `job_id` is the last job that
    deployed it with success, or else the last that tried; `config` and `variables` are what that job's script got:
    CloudFormation rolls back what fails.
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
    serves: ServedModel | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The kinds and names of its resources."""
        return resource_names(self.config, self.region, self.stack_name)

    @property
    def rendered(self) -> RenderedStack:
        return RenderedStack(self.config, self.region, self.stack_name, self.variables, self.names)


class StackStore:
    """The records of one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def for_job(cls, job_directory: Path) -> StackStore:
        """The store of the data folder that this job's directory is in."""
        return cls(job_directory.parent.parent / "stacks")

    def get(self, region: str, stack_name: str) -> StackRecord | None:
        """The stack's record; None if there is none, or none that can be read."""
        return _read_record(self._record_path(region, stack_name))

    def list_all(self) -> list[StackRecord]:
        """All records that can be read, by region and name."""
        records = map(_read_record, sorted(self._folder.glob("*/*.json")))
        return [record for record in records if record is not None]

    def save(self, record: StackRecord) -> None:
        """Write the record, or replace it. Raises OSError."""
        path = self._record_path(record.region, record.stack_name)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(path, msgspec.json.encode(record))

    def remove(self, region: str, stack_name: str) -> None:
        """Remove the record, if there is one. Raises OSError."""
        self._record_path(region, stack_name).unlink(missing_ok=True)

    def _record_path(self, region: str, stack_name: str) -> Path:
        # Safe as a path: both have been validated to consist of letters, digits and hyphens.
        return self._folder / region / f"{stack_name}.json"


def _read_record(path: Path) -> StackRecord | None:
    try:
        return read_json(path, StackRecord)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        log.warning("stack_record_unreadable", path=str(path), error=str(error))
        return None
