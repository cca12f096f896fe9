"""The architecture rules, checked on syntax trees: allowed imports, no circle, sizes, names."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

PACKAGES = ("server", "pipeline", "infraforge_runner")
MAX_FILE = 400  # lines
MAX_FUNCTION = 60
MAX_ENTRIES = 18  # of a folder of the product, `__init__.py` not counted

MAY_IMPORT = {
    "run": {"run", "server", "pipeline", "infraforge_runner"},
    "server": {"server", "pipeline", "infraforge_runner"},
    "pipeline": {"pipeline"},
    "infraforge_runner": {"infraforge_runner", "pipeline"},
}
CLIENT = "server.client"
"""The command line talks to a server over HTTP; of ours it knows only `run`, to start one."""

RUNNER_MAY_IMPORT = {"aws", "errors", "events", "masking", "presets", "telemetry"}
"""What the runner knows of the pipeline, by folder or file: nothing of an inference."""

RETIRED_WORDS = {
    *("asked", "blow", "door", "given", "hindrance", "hush", "insist", "kept", "living", "rehearsal", "said", "settle"),
    *("sky", "strike", "supervision", "talk", "told", "untold", "wanted", "withdraw"),
}
"""Words of the first edition that say who did what to a value, or that no other project uses; not for identifiers."""

ONLY_IN = {
    "tornado": {"run", "server"},
    "watchdog": {"infraforge_runner.jobs.watch"},
    "aiobotocore": {"pipeline.aws.clients"},
    "botocore": {"pipeline.aws.errors"},
    "opentelemetry": {"pipeline.telemetry.otel"},
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
        """Wire code that providers share has no class with `availability`."""
        classes = (node for node in self.tree.body if isinstance(node, ast.ClassDef))
        methods = (node.name for cls in classes for node in cls.body if isinstance(node, ast.AsyncFunctionDef))
        return self.name.startswith("pipeline.providers.") and "availability" in methods


def find_violations(root: Path) -> list[str]:
    """Return a sentence for each violation under `root`."""
    modules = {module.name: module for module in _read(root)}
    violations = [
        violation for module in modules.values() for violation in [*_lengths(module), *_imports(module, modules)]
    ]
    return [
        *violations,
        *_circle(modules),
        *_same_names(modules),
        *_retired_words(root),
        *_entries(root),
        *_not_packages(root),
    ]


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
    reported = set()
    for name, line in module.imports():
        why = _forbidden(module, name, modules)
        if why and (line, why) not in reported:
            reported.add((line, why))
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
    is_unknown = name in modules and name.startswith("pipeline.") and name.split(".")[1] not in RUNNER_MAY_IMPORT
    if module.top == "infraforge_runner" and is_unknown:
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


def _entries(root: Path) -> Iterator[str]:
    """Folders that hold so much that a name no longer leads to a place in them."""
    for package in PACKAGES:
        for folder in sorted(path for path in (root / package).rglob("*") if path.is_dir()):
            entries = [path for path in folder.iterdir() if path.name not in ("__init__.py", "__pycache__")]
            if len(entries) > MAX_ENTRIES and "static" not in folder.parts:
                yield f"{folder.relative_to(root)} has {len(entries)} entries; at most {MAX_ENTRIES}"


def _not_packages(root: Path) -> Iterator[str]:
    """Folders that setuptools would leave out of an installation."""
    for package in PACKAGES:
        for folder in sorted({path.parent for path in (root / package).rglob("*.py")}):
            if not (folder / "__init__.py").exists():
                yield f"{folder.relative_to(root)} holds modules, but no __init__.py: it would not be installed"


def _same_names(modules: Mapping[str, Module]) -> Iterator[str]:
    """Names of types with two meanings; each stage and provider has its own `Options`."""
    places: dict[str, list[str]] = {}
    for module in modules.values():
        for name, line in _types(module.tree):
            if name not in ("Options", "ModelOptions"):
                places.setdefault(name, []).append(f"{module.path}:{line}")
    for name, where in sorted(places.items()):
        if len(where) > 1:
            yield f"{name} is the name of {len(where)} types: {', '.join(where)}"


def _types(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """The classes of a module, and its aliases of types; not its type variables."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield node.name, node.lineno
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if re.fullmatch(r"[A-Z]\w*[a-z]\w*", name) and not name.startswith("T_"):
                yield name, node.lineno


def _retired_words(root: Path) -> Iterator[str]:
    """Identifiers, in product and tests, that are made of retired words."""
    paths = [path for folder in (*PACKAGES, "tests") for path in sorted((root / folder).rglob("*.py"))]
    for path in (path for path in paths if "node_modules" not in path.parts):
        for name, line in _identifiers(ast.parse(path.read_text())):
            retired = RETIRED_WORDS & {word.lower() for word in re.findall(r"[A-Z]?[a-z]+", name)}
            if retired and not name.startswith("test_"):  # a test's name is an ordinary sentence
                yield f"{path.relative_to(root)}:{line}: {name} uses the word {', '.join(sorted(retired))}"


def _identifiers(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """The names that a module defines, each with its line."""
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name, node.lineno
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name, node.lineno
