"""The rules of the house, read off the syntax trees: who may import whom, no circle, and how long things may be."""

from __future__ import annotations

import ast
import configparser
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

PACKAGES = ("server", "pipeline", "infraforge_runner")
MAX_FILE = 400  # lines
MAX_FUNCTION = 60

MAY_IMPORT = {
    "run": {"run", "server", "pipeline", "infraforge_runner"},
    "server": {"server", "pipeline", "infraforge_runner"},
    "pipeline": {"pipeline"},
    "infraforge_runner": {"infraforge_runner", "pipeline"},
}
CLIENT = "server.client"
"""The command line talks to a server over HTTP; of ours it knows only `run`, to start one."""

RUNNER_MAY_IMPORT = {"eventlog", "errors", "otel", "presets", "store", "schema", "silence", "tracing", "yamlfile"}
"""What the runner knows of the pipeline: the logs, the presets and the traces, nothing of an inference."""

ONLY_IN = {
    "tornado": {"run", "server"},
    "watchdog": {"infraforge_runner.watch"},
    "aiobotocore": {"pipeline.providers.aws", "infraforge_runner.stack"},
    "botocore": {"pipeline.providers.aws_errors", "infraforge_runner.stack"},
    "opentelemetry": {"pipeline.otel"},
}


@dataclass(frozen=True)
class Module:
    """One product file. `name` is what one imports it by."""

    name: str
    path: str
    source: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)

    @property
    def top(self) -> str:
        return self.name.split(".")[0]

    def imports(self) -> Iterator[tuple[str, int]]:
        """Every name that an import could mean, wherever it stands, with its line."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((alias.name, node.lineno) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = self._absolute(node)
                yield base, node.lineno
                yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        steps = self.name.split(".") + ["__init__"] * self.path.endswith("__init__.py")
        return ".".join([*steps[: -node.level], *([node.module] if node.module else [])])

    @property
    def is_provider(self) -> bool:
        """Wire code that providers share has no `create`."""
        functions = (node.name for node in self.tree.body if isinstance(node, ast.FunctionDef))
        return self.name.startswith("pipeline.providers.") and "create" in functions


def faults(root: Path) -> list[str]:
    """A sentence for everything that is wrong under `root`."""
    modules = {module.name: module for module in _read(root)}
    found = [fault for module in modules.values() for fault in [*_lengths(module), *_imports(module, modules)]]
    return [*found, *_circle(modules), *_unlisted(root, modules)]


def _read(root: Path) -> Iterator[Module]:
    paths = [root / "run.py", *(path for package in PACKAGES for path in sorted((root / package).rglob("*.py")))]
    for path in (path for path in paths if path.exists()):
        relative = path.relative_to(root)
        name = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
        yield Module(name, str(relative), path.read_text())


def _lengths(module: Module) -> Iterator[str]:
    lines = len(module.source.splitlines())
    if lines > MAX_FILE:
        yield f"{module.path} has {lines} lines; at most {MAX_FILE}: give a part of it a file of its own"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MAX_FUNCTION:
                yield f"{module.path}:{node.lineno}: {node.name} has {lines} lines; at most {MAX_FUNCTION}"


def _imports(module: Module, modules: Mapping[str, Module]) -> Iterator[str]:
    said = set()
    for name, line in module.imports():
        why = _forbidden(module, name, modules)
        if why and (line, why) not in said:
            said.add((line, why))
            yield f"{module.path}:{line}: imports {name}, but {why}"


def _forbidden(module: Module, name: str, modules: Mapping[str, Module]) -> str | None:
    """Why this import may not be."""
    top = name.partition(".")[0]
    if _is_client(module.name) or _is_client(name):
        return _forbidden_of_client(module, name)
    if top in MAY_IMPORT and top not in MAY_IMPORT[module.top]:
        return f"{module.top} knows nothing of {top}"
    if top in ONLY_IN and not ({module.name, module.top} & ONLY_IN[top]):
        return f"{top} appears only in {', '.join(sorted(ONLY_IN[top]))}"
    is_unknown = name in modules and name.removeprefix("pipeline.") not in {*RUNNER_MAY_IMPORT, "pipeline"}
    if module.top == "infraforge_runner" and top == "pipeline" and is_unknown:
        return f"of the pipeline the runner knows only {', '.join(sorted(RUNNER_MAY_IMPORT))}"
    if module.is_provider and name in modules and name != module.name and modules[name].is_provider:
        return "a provider imports no other provider: what they share goes into a module without `create`"
    return None


def _forbidden_of_client(module: Module, name: str) -> str | None:
    if not _is_client(module.name):
        return "the client is a program of its own: nothing of the server knows it"
    is_known = name in ("run", "server") or _is_client(name) or name.partition(".")[0] not in MAY_IMPORT
    return None if is_known else "of ours the client knows only run"


def _is_client(name: str) -> bool:
    return name == CLIENT or name.startswith(CLIENT + ".")


def _circle(modules: Mapping[str, Module]) -> list[str]:
    graph = {
        module.name: {name for name, _ in module.imports() if name in modules and name != module.name}
        for module in modules.values()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [f"these modules import each other in a circle: {' <- '.join(error.args[1])}"]
    return []


def _unlisted(root: Path, modules: Mapping[str, Module]) -> list[str]:
    """Packages that would not be installed, because setup.cfg does not list them."""
    config = configparser.ConfigParser()
    config.read(root / "setup.cfg")
    listed = set(config.get("options", "packages", fallback="").split())
    folders = {str(Path(module.path).parent).replace("/", ".") for module in modules.values()} - {"."}
    missing = [
        f"{folder} holds modules, but setup.cfg does not list it among the packages" for folder in folders - listed
    ]
    return sorted([*missing, *(f"setup.cfg lists the package {name}, which is not there" for name in listed - folders)])
