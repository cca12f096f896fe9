"""The product keeps the rules of the house, and the checker that says so would notice if it did not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.house import faults

ROOT = Path(__file__).parents[1]


def test_the_house_is_in_order() -> None:
    found = faults(ROOT)
    assert not found, "\n" + "\n".join(found)


def planted(root: Path, **files: str) -> list[str]:
    """The faults of a small house with these files in it; `__` in a name is a folder's slash."""
    packages = ["server", "server.client", "pipeline", "pipeline.providers", "infraforge_runner"]
    for package in packages:
        folder = root / package.replace(".", "/")
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
    (root / "setup.cfg").write_text("[options]\npackages =\n    " + "\n    ".join(packages))
    (root / "run.py").write_text("import tornado\nimport server\nfrom pipeline import plugins\n")
    for name, source in files.items():
        (root / f"{name.replace('__', '/')}.py").write_text(source)
    return faults(root)


def test_a_house_in_order_has_no_fault(tmp_path: Path) -> None:
    assert planted(tmp_path, server__app="import tornado.web\nfrom infraforge_runner import runner\n") == []


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
        ("server__a", "import watchdog.events", "watchdog appears only in infraforge_runner.watch"),
        ("pipeline__a", "from aiobotocore import session", "aiobotocore appears only in infraforge_runner.stack,"),
        ("pipeline__providers__local", "import botocore", "botocore appears only in"),
        ("server__a", "if 1:\n    from ..pipeline import x\nimport watchdog", "watchdog appears only in"),
    ],
)
def test_an_import_over_a_border_is_found(tmp_path: Path, where: str, source: str, why: str) -> None:
    (fault,) = planted(tmp_path, **{where: source})
    assert fault.startswith(where.replace("__", "/") + ".py:")
    assert why in fault


def test_the_runner_may_know_the_event_log_and_nothing_of_an_inference(tmp_path: Path) -> None:
    source = "from pipeline.eventlog import EventLog\nfrom pipeline import streams\n"
    (fault,) = planted(tmp_path, infraforge_runner__a=source, pipeline__streams="", pipeline__eventlog="")
    assert fault.startswith(
        "infraforge_runner/a.py:2: imports pipeline.streams, but of the pipeline the runner knows only"
    )


def test_the_client_knows_nothing_of_the_server_but_how_to_start_one(tmp_path: Path) -> None:
    cli = "import run\nfrom server.client import api\nfrom server import wire\nfrom pipeline import errors\n"
    app = "from server.client import api\n"
    found = planted(tmp_path, server__client__cli=cli, server__client__api="", server__wire="", server__app=app)
    assert [fault.partition(",")[0] for fault in found] == [
        "server/app.py:1: imports server.client",
        "server/client/cli.py:3: imports server.wire",
        "server/client/cli.py:4: imports pipeline",
    ]


def test_what_is_allowed_in_one_place_is_no_fault_there(tmp_path: Path) -> None:
    watch = "from watchdog.observers import Observer"
    assert planted(tmp_path, infraforge_runner__watch=watch, pipeline__providers__aws="import aiobotocore") == []


def test_a_provider_that_imports_another_is_found_and_shared_wire_code_is_none(tmp_path: Path) -> None:
    create = "def create(options, context): ...\n"
    (fault,) = planted(
        tmp_path,
        pipeline__providers__wire="import json",
        pipeline__providers__one=create,
        pipeline__providers__two="from pipeline.providers import one, wire\n" + create,
    )
    assert fault.startswith(
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
def test_a_circle_is_found_however_it_is_closed(tmp_path: Path, back: str) -> None:
    (fault,) = planted(tmp_path, pipeline__a="import pipeline.b", pipeline__b="import pipeline.c", pipeline__c=back)
    assert fault.startswith("these modules import each other in a circle: pipeline.")


def test_what_is_too_long_is_found(tmp_path: Path) -> None:
    function = "async def f():\n" + "    pass\n" * 60
    found = planted(tmp_path, pipeline__long="pass\n" * 401, pipeline__deep=f"class A:\n    pass\n\n{function}")
    assert found == [
        "pipeline/deep.py:4: f has 61 lines; at most 60",
        "pipeline/long.py has 401 lines; at most 400: give a part of it a file of its own",
    ]


def test_what_just_fits_is_no_fault(tmp_path: Path) -> None:
    function = "def f():\n" + "    pass\n" * 59
    assert planted(tmp_path, pipeline__long="pass\n" * 400, pipeline__deep=function) == []


def test_a_package_that_would_not_be_installed_is_found_and_one_that_is_not_there(tmp_path: Path) -> None:
    planted(tmp_path)
    (tmp_path / "server" / "handlers").mkdir()
    (tmp_path / "server" / "handlers" / "chat.py").touch()
    (tmp_path / "infraforge_runner" / "__init__.py").unlink()
    assert faults(tmp_path) == [
        "server.handlers holds modules, but setup.cfg does not list it among the packages",
        "setup.cfg lists the package infraforge_runner, which is not there",
    ]
