"""What pages point at is there: pages, files, options, metrics."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.docs.pages import ROOT, code_in, pages, table, text_of
from tests.docs.test_tables import COMMANDS


def test_the_map_of_the_folders_is_right_and_whole() -> None:
    mapped = set[Path]()
    for cell in table("docs/ARCHITECTURE.md", "where").column():
        folder = Path()
        for name in code_in(cell):
            found = [*ROOT.glob(name), *ROOT.glob(str(folder / name))]
            assert found, f"{name} is not there"
            folder = Path(name).parent if "/" in name and ROOT.glob(name) else folder
            mapped.update(found)
    modules = {path for folder in ("server", "pipeline", "infraforge_runner") for path in ROOT.glob(f"{folder}/*.py")}
    assert {path for path in modules - mapped if path.name != "__init__.py"} == set()


def test_the_readme_leads_to_every_page() -> None:
    linked = {path for cell in table("README.md", "").column() for path in re.findall(r"\(([\w/.-]+\.md)\)", cell)}
    assert linked == set(pages()) - {"README.md"}


OF_OTHERS = {
    "aws": {"--profile"},
    "cdk": {"--force"},
    "docker": {"--init", "--pid", "--read-only", "--stop-timeout", "--tmpfs"},
    "emd deploy": {"--model-id", "--model-tag", "--instance-type", "--engine-type", "--service-type", "--extra-params"},
    "git clone": {"--branch"},
    "pip install": {"--editable"},
    "systemctl": {"--now"},
    "tar": {"--create", "--directory", "--extract", "--file", "--warning"},
    "forgeline": {"--install-completion", "--help"},
    "sky launch": {"--dryrun"},
}
"""Options of other programs that pages name."""


def test_every_option_that_a_page_names_is_one() -> None:
    ours = {
        option for command in COMMANDS.values() for one in command.params for option in one.opts + one.secondary_opts
    }
    server = set(table("docs/OPTIONS.md", "option").names())
    known = ours | server | benchmark_options() | set().union(*OF_OTHERS.values())
    for page in pages():
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", re.sub(r"<!--.*?-->", "", text_of(page))))
        assert named - known == set(), f"{page} names options that nobody has"


def benchmark_options() -> set[str]:
    source = (ROOT / "benchmarks" / "__main__.py").read_text()
    return set(re.findall(r'add_argument\("(--[\w-]+)"', source))


def test_every_file_that_a_page_names_is_there() -> None:
    place = re.compile(r"(?:\.ci|benchmarks|docs|infraforge_runner|pipeline|server|tests)/[\w./*-]*")
    for page in pages():
        for name in code_in(text_of(page)):
            if place.fullmatch(name):
                assert list(ROOT.glob(name.replace("NAME", "*"))), f"{page} names {name}"


def test_every_target_of_make_that_a_page_names_is_one() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in pages():
        named = set(re.findall(r"(?<=`make )(?:-s )?([\w-]+)", text_of(page)))
        assert named <= targets, f"{page} names targets that there are not"


def test_the_sites_navigation_leads_to_every_page() -> None:
    conf = ast.parse(text_of("docs/site/conf.py"))
    lists = [node for node in ast.walk(conf) if isinstance(node, ast.Dict)]
    told = {f"{page}.md" for chapter in ast.literal_eval(lists[0]).values() for page in chapter}
    assert set(pages()) - {"README.md"} <= told


def test_every_link_to_a_file_leads_there() -> None:
    for page in pages():
        for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text_of(page)):
            assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}"
