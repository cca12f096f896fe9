"""Pages, files, options and make targets that the documentation references exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.docs.pages import ROOT, code_spans, find_table, page_paths, read_page
from tests.docs.test_tables import COMMANDS


def test_architecture_docs_map_covers_folders() -> None:
    mapped = set[Path]()
    for cell in find_table("docs/ARCHITECTURE.md", "where").column():
        folder = Path()
        for name in code_spans(cell):
            paths = [*ROOT.glob(name), *ROOT.glob(str(folder / name))]
            assert paths, f"{name} is not there"
            folder = Path(name).parent if "/" in name and ROOT.glob(name) else folder
            mapped.update(paths)
    modules = {path for folder in ("server", "pipeline", "infraforge_runner") for path in ROOT.glob(f"{folder}/*.py")}
    assert {path for path in modules - mapped if path.name != "__init__.py"} == set()


def test_readme_links_every_page() -> None:
    linked = {path for cell in find_table("README.md", "").column() for path in re.findall(r"\(([\w/.-]+\.md)\)", cell)}
    assert linked == set(page_paths()) - {"README.md"}


FOREIGN_OPTIONS = {
    "aws": {"--profile"},
    "cdk": {"--force"},
    "docker": {"--init", "--pid", "--read-only", "--stop-timeout", "--tmpfs"},
    "emd deploy": {"--model-id", "--model-tag", "--instance-type", "--engine-type", "--service-type", "--extra-params"},
    "git clone": {"--branch"},
    "pip install": {"--editable"},
    "systemctl": {"--now"},
    "tar": {"--create", "--directory", "--extract", "--file", "--warning"},
    "forgeline": {"--install-completion", "--help", "--version"},
    "sky launch": {"--dryrun"},
}
"""Options of other programs that pages mention."""


def test_options_named_in_docs_exist() -> None:
    client_options = {
        option
        for command in COMMANDS.values()
        for parameter in command.params
        for option in parameter.opts + parameter.secondary_opts
    }
    server_options = set(find_table("docs/OPTIONS.md", "option").code_names())
    known = client_options | server_options | benchmark_options() | set().union(*FOREIGN_OPTIONS.values())
    for page in page_paths():
        mentioned = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", re.sub(r"<!--.*?-->", "", read_page(page))))
        assert mentioned - known == set(), f"{page} names options that nobody has"


def benchmark_options() -> set[str]:
    source = (ROOT / "benchmarks" / "__main__.py").read_text()
    return set(re.findall(r'add_argument\("(--[\w-]+)"', source))


def test_files_named_in_docs_exist() -> None:
    path_pattern = re.compile(r"(?:\.ci|benchmarks|docs|infraforge_runner|pipeline|server|tests)/[\w./*-]*")
    for page in page_paths():
        for name in code_spans(read_page(page)):
            if path_pattern.fullmatch(name):
                assert list(ROOT.glob(name.replace("NAME", "*"))), f"{page} names {name}"


def test_make_targets_named_in_docs_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in page_paths():
        mentioned = set(re.findall(r"(?<=`make )(?:-s )?([\w-]+)", read_page(page)))
        assert mentioned <= targets, f"{page} names targets that there are not"


def test_site_navigation_includes_every_page() -> None:
    conf = ast.parse(read_page("docs/site/conf.py"))
    lists = [node for node in ast.walk(conf) if isinstance(node, ast.Dict)]
    linked = {f"{page}.md" for chapter in ast.literal_eval(lists[0]).values() for page in chapter}
    assert set(page_paths()) - {"README.md"} <= linked


def test_file_links_in_docs_resolve() -> None:
    for page in page_paths():
        for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", read_page(page)):
            assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}"
