"""The pipeline's preset, `pipeline.yaml`: the list of stages that every request passes, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

from msgspec import Struct

from pipeline.presets.schema import SchemaError, ValuePath, validate
from pipeline.presets.store import PresetKind

DEFAULT_STAGES = (
    "decode_frames",
    "fallback",
    "route_model",
    "fit_frames",
    "retry",
    "circuit_breaker",
    "limit",
    "invoke",
    "normalize_envelope",
)
"""The stages of a server without a pipeline.yaml. `make schema` writes them into the shipped one."""

_ORDERED_STAGES = {"retry", "circuit_breaker", "limit"}


class StageSpec(Struct, frozen=True):
    """One stage of the pipeline: its name and its options."""

    name: str
    options: dict[str, Any] = {}


class PipelinePreset(Struct, frozen=True):
    """The stages of a valid pipeline.yaml, in order, and the options of providers by name."""

    stages: tuple[StageSpec, ...]
    providers: Mapping[str, Mapping[str, Any]] = {}


class PipelineFile(Struct, forbid_unknown_fields=True):
    """The content of pipeline.yaml: an item is a stage's name, or a mapping from one name to its options.

    `providers` maps names of providers to their options.
    """

    stages: list[str | dict[str, dict[str, Any]]]
    providers: dict[str, dict[str, Any]] = {}


class UnusablePipeline(SchemaError):
    """This list of stages can never answer a request: a server does not start with it."""


CheckOptions = Callable[[str, Mapping[str, Any]], object]
"""Check the options of the plugin with this name. Raises LookupError if it is not installed, SchemaError."""


def parse_pipeline(value: Any, check_stage: CheckOptions, check_provider: CheckOptions) -> PipelinePreset:
    """Validate the content of pipeline.yaml.

    Raises SchemaError for content of the wrong shape, UnusablePipeline for a pipeline that can never answer.
    """
    file = validate(value, PipelineFile)
    specs = [_parse_stage_spec(item, index) for index, item in enumerate(file.stages)]
    for index, spec in enumerate(specs):
        with _located(("stages", index), spec.name):
            check_stage(spec.name, spec.options)
    for name, options in file.providers.items():
        with _located(("providers",), name):
            check_provider(name, options)
    _check_order(specs)
    return PipelinePreset(tuple(specs), file.providers)


@contextmanager
def _located(path: ValuePath, name: str) -> Iterator[None]:
    """Raise UnusablePipeline, with the path in the file, for an error of the plugin `name` at `path`."""
    try:
        yield
    except LookupError as error:
        raise UnusablePipeline(path, str(error.args[0])) from error
    except SchemaError as error:
        raise UnusablePipeline((*path, name, *error.path), error.problem) from error


def _check_order(specs: Sequence[StageSpec]) -> None:
    """Raise UnusablePipeline for stages that can never answer in this order."""
    names = [spec.name for spec in specs]
    if names.count("invoke") != 1:
        raise UnusablePipeline(("stages",), "exactly one of the stages has to be invoke")
    if names[-1] != "normalize_envelope" or names.count("normalize_envelope") != 1:
        raise UnusablePipeline(("stages",), "normalize_envelope has to stand there once, as the last stage")
    for index, spec in enumerate(specs):
        if spec in specs[:index]:  # a second `limit` would wait for the permit that the first one holds
            raise UnusablePipeline(("stages", index), f"{spec.name} stands here a second time")
    if "route_model" in names and names.index("route_model") > names.index("invoke"):
        raise UnusablePipeline(("stages",), "route_model has to stand before invoke")


def find_order_warnings(preset: PipelinePreset) -> list[SchemaError]:
    """A warning if retry, breaker and limiter stand in another order than in `DEFAULT_STAGES`, as in 0.1.0."""
    stages = [(index, spec.name) for index, spec in enumerate(preset.stages) if spec.name in _ORDERED_STAGES]
    for (_, name_before), (index, name) in pairwise(stages):
        if DEFAULT_STAGES.index(name_before) > DEFAULT_STAGES.index(name):
            problem = (
                f"{name} should stand before {name_before}: since 0.2.0 the order is retry, circuit_breaker, limit."
                " In another order a retry may hold its permit while it waits, and calls may exceed the limits."
            )
            return [SchemaError(("stages", index), problem)]
    return []


def _parse_stage_spec(item: str | dict[str, dict[str, Any]], index: int) -> StageSpec:
    if isinstance(item, str):
        return StageSpec(item)
    if len(item) != 1:
        raise SchemaError(("stages", index), "expected a stage's name, or one name with its options")
    ((name, options),) = item.items()
    return StageSpec(name, options)


def pipeline_preset_kind(parse: Callable[[Any], PipelinePreset]) -> PresetKind[PipelinePreset]:
    """The preset kind of pipeline.yaml; see `parse_pipeline` for `parse`."""
    return PresetKind("pipeline", "", parse, single="pipeline", find_warnings=find_order_warnings)
