"""The architecture rules: the product keeps them, and the checker reports each kind of violation."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.architecture import find_violations

ROOT = Path(__file__).parents[1]


def test_product_keeps_architecture_rules() -> None:
    violations = find_violations(ROOT)
    assert not violations, "\n" + "\n".join(violations)


def check_tree(root: Path, **files: str) -> list[str]:
    """Return the violations of a small tree with these files; `__` in a name is a folder's slash."""
    (root / "run.py").write_text("import tornado\nimport server\nfrom pipeline import plugins\n")
    empty = dict.fromkeys(("server__app", "pipeline__stage", "infraforge_runner__runner"), "")
    for name, source in {**empty, **files}.items():
        path = root / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
        for folder in list(path.relative_to(root).parents)[:-1]:
            (root / folder / "__init__.py").touch()
    return find_violations(root)


def test_valid_tree_has_no_fault(tmp_path: Path) -> None:
    assert check_tree(tmp_path, server__app="import tornado.web\nfrom infraforge_runner import runner\n") == []


@pytest.mark.parametrize(
    ("where", "source", "why"),
    [
        ("pipeline__a", "import server.app", "imports server.app, but pipeline knows nothing of server"),
        ("pipeline__a", "from infraforge_runner import job", "pipeline knows nothing of infraforge_runner"),
        ("pipeline__a", "def f():\n    import run", "pipeline knows nothing of run"),
        ("server__a", "import run", "server knows nothing of run"),
        ("infraforge_runner__a", "import server", "infraforge_runner knows nothing of server"),
        ("pipeline__a", "import tornado.web", "tornado appears only in run, server"),
        ("infraforge_runner__a", "from tornado import web", "tornado appears only in run, server"),
        ("server__a", "import watchdog.events", "watchdog appears only in infraforge_runner.jobs.watch"),
        (
            "pipeline__a",
            "from aiobotocore import session",
            "aiobotocore appears only in pipeline.aws.clients",
        ),
        ("pipeline__providers__local", "import botocore", "botocore appears only in"),
        ("server__a", "if 1:\n    from ..pipeline import x\nimport watchdog", "watchdog appears only in"),
    ],
)
def test_forbidden_import_is_found(tmp_path: Path, where: str, source: str, why: str) -> None:
    (violation,) = check_tree(tmp_path, **{where: source})
    assert violation.startswith(where.replace("__", "/") + ".py:")
    assert why in violation


def test_runner_import_of_streams_is_found_and_of_event_log_accepted(tmp_path: Path) -> None:
    source = "from pipeline.events.log import EventLog\nfrom pipeline import streams\n"
    (violation,) = check_tree(tmp_path, infraforge_runner__a=source, pipeline__streams="", pipeline__events__log="")
    assert violation.startswith(
        "infraforge_runner/a.py:2: imports pipeline.streams, but of the pipeline the runner knows only"
    )


def test_client_import_of_server_is_found(tmp_path: Path) -> None:
    cli = "import run\nfrom server.client import api\nfrom server import errors\nfrom pipeline import errors\n"
    app = "from server.client import api\n"
    violations = check_tree(
        tmp_path, server__client__cli=cli, server__client__api="", server__errors="", server__app=app
    )
    assert [violation.partition(",")[0] for violation in violations] == [
        "server/app.py:1: imports server.client",
        "server/client/cli.py:3: imports server.errors",
        "server/client/cli.py:4: imports pipeline",
    ]


def test_library_import_in_its_one_place_is_accepted(tmp_path: Path) -> None:
    watch = "from watchdog.observers import Observer"
    assert check_tree(tmp_path, infraforge_runner__jobs__watch=watch, pipeline__aws__clients="import aiobotocore") == []


def test_provider_import_of_provider_is_found_and_of_wire_code_accepted(tmp_path: Path) -> None:
    provider = "class {}:\n    async def availability(self, preset): ...\n"
    (violation,) = check_tree(
        tmp_path,
        pipeline__providers__wire="import json",
        pipeline__providers__one=provider.format("One"),
        pipeline__providers__two="from pipeline.providers import one, wire\n" + provider.format("Two"),
    )
    assert violation.startswith(
        "pipeline/providers/two.py:1: imports pipeline.providers.one, but a provider imports no other"
    )


@pytest.mark.parametrize(
    "back",
    [
        "import pipeline.a",
        "from pipeline import a",
        "from . import a",
        "from .a import x",
        "if TYPE_CHECKING:\n    from pipeline.a import x",
        "def f():\n    import pipeline.a",
    ],
)
def test_import_circle_is_found(tmp_path: Path, back: str) -> None:
    (violation,) = check_tree(
        tmp_path, pipeline__a="import pipeline.b", pipeline__b="import pipeline.c", pipeline__c=back
    )
    assert violation.startswith("these modules import each other in a circle: pipeline.")


def test_long_file_and_long_function_are_found(tmp_path: Path) -> None:
    function = "async def f():\n" + "    pass\n" * 60
    violations = check_tree(tmp_path, pipeline__long="pass\n" * 401, pipeline__deep=f"class A:\n    pass\n\n{function}")
    assert violations == [
        "pipeline/deep.py:4: f has 61 lines; at most 60",
        "pipeline/long.py has 401 lines; at most 400: give a part of it a file of its own",
    ]


def test_file_and_function_at_limit_are_accepted(tmp_path: Path) -> None:
    function = "def f():\n" + "    pass\n" * 59
    assert check_tree(tmp_path, pipeline__long="pass\n" * 400, pipeline__deep=function) == []


def test_folder_that_would_not_be_installed_is_found(tmp_path: Path) -> None:
    check_tree(tmp_path, server__handlers__chat="")
    (tmp_path / "server" / "handlers" / "__init__.py").unlink()
    assert find_violations(tmp_path) == ["server/handlers holds modules, but no __init__.py: it would not be installed"]


def test_folder_with_more_than_18_entries_is_found(tmp_path: Path) -> None:
    check_tree(tmp_path, **{f"pipeline__stages__s{number}": "" for number in range(18)})
    assert find_violations(tmp_path) == []
    (tmp_path / "pipeline" / "stages" / "one_more.py").touch()
    assert find_violations(tmp_path) == ["pipeline/stages has 19 entries; at most 18"]


def test_class_name_with_two_meanings_is_found(tmp_path: Path) -> None:
    source = "class Plan: ...\nclass Options: ...\nTable = dict[str, int]\n"
    assert check_tree(tmp_path, server__a=source, pipeline__b=source) == [
        "Plan is the name of 2 types: server/a.py:1, pipeline/b.py:1",
        "Table is the name of 2 types: server/a.py:3, pipeline/b.py:3",
    ]


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("def check_told(): ...", "check_told"),
        ("async def f(askedModel): ...", "askedModel"),
        ("class KeptJob: ...", "KeptJob"),
        ("kept = 1", "kept"),
        ("class A:\n    def f(self):\n        self._told = 1", "_told"),
    ],
)
def test_identifier_with_retired_word_is_found(tmp_path: Path, source: str, name: str) -> None:
    (violation,) = check_tree(tmp_path, server__a=source)
    assert f": {name} uses the word " in violation


def test_identifiers_with_standard_words_are_accepted(tmp_path: Path) -> None:
    assert check_tree(tmp_path, server__a="def keep_alive(task, skyline): ...\nprint('told')\n") == []
