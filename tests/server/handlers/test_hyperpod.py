"""The addresses of deploy jobs: what they take, what they answer, what they refuse."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import msgpack
import pytest

from tests.aio import asynchronous
from tests.jobs import ended, job_of, post, submit, write_hyperpod
from tests.serving import Server, says, serving

MODELS = {"m": says("echo")}
TAGGED = {"cluster_tag": {"env": "CLUSTER_TAG", "type": "string", "pattern": "^[a-z][a-z0-9-]{0,20}$"}}
UNTIL_TOLD = "until [ -e go ]; do sleep 0.05; done"
"""A script that waits for a file in its work directory."""


def let_go(tmp_path: Path, job_id: str) -> None:
    (tmp_path / "data" / "jobs" / job_id / "work" / "go").touch()


async def get(server: Server, path: str) -> tuple[int, dict[str, Any]]:
    async with server.http.get(server.url + path) as response:
        return response.status, await response.json()


@asynchronous
async def test_a_deploy_is_answered_at_once_with_its_job(tmp_path: Path) -> None:
    write_hyperpod(tmp_path / "presets")
    async with serving(tmp_path, models=MODELS) as server:
        body = {"preset": "small", "dry_run": False}
        async with server.http.post(server.url + "/api/hyperpod/deploy", json=body) as response:
            answer = await response.json()
        job = answer["job"]
        assert (response.status, answer["status"]) == (202, "submitted")
        assert response.headers["Location"] == f"/api/hyperpod/jobs/{job['job_id']}"
        assert str(uuid.UUID(job["job_id"])) == job["job_id"]
        told = {key: job[key] for key in ("status", "action", "preset", "dry_run", "region", "stack_name", "overrides")}
        assert told == {
            "status": "queued",
            "action": "deploy",
            "preset": "small",
            "dry_run": False,
            "region": "us-east-1",
            "stack_name": "small-stack",
            "overrides": {},
        }
        assert job["created_at"].endswith("+00:00")
        await ended(server, job["job_id"])


@asynchronous
async def test_what_the_reference_posts_is_taken(tmp_path: Path) -> None:
    write_hyperpod(
        tmp_path / "presets", overrides={"region": {"env": "AWS_REGION"}, **TAGGED}, destroy="true", deploy="true"
    )
    async with serving(tmp_path, models=MODELS) as server:
        overrides = {"region": "us-west-2", "cluster_tag": "demo-cluster-001"}
        asked = {"preset": "small", "dry_run": True, "overrides": overrides}
        status, answer = await post(server, "/api/hyperpod/deploy", asked)
        assert (status, answer["job"]["dry_run"], answer["job"]["region"]) == (202, True, "us-west-2")
        destroy = {"preset": "small", "overrides": {"region": "us-west-2"}}
        status, destroyed = await post(server, "/api/hyperpod/destroy", destroy)
        assert (status, destroyed["job"]["action"], destroyed["job"]["dry_run"]) == (202, "destroy", True)
        for job in (answer["job"], destroyed["job"]):
            assert (await ended(server, job["job_id"]))["status"] == "succeeded"


@asynchronous
async def test_preset_and_dry_run_have_defaults(tmp_path: Path) -> None:
    write_hyperpod(tmp_path / "presets")
    async with serving(tmp_path, models=MODELS) as server:
        _, dry = await post(server, "/api/hyperpod/deploy", {})
        assert (dry["job"]["preset"], dry["job"]["dry_run"]) == ("small", True)
        await ended(server, dry["job"]["job_id"])
    async with serving(tmp_path, "--dry-run=false", models=MODELS) as server:
        _, live = await post(server, "/api/hyperpod/deploy", {})
        assert live["job"]["dry_run"] is False
        _, dry = await post(server, "/api/hyperpod/deploy", {"dry_run": True})
        assert dry["job"]["dry_run"] is True
        for answer in (live, dry):
            await ended(server, answer["job"]["job_id"])


@asynchronous
async def test_a_finished_job_tells_its_times_and_result(tmp_path: Path) -> None:
    write_hyperpod(tmp_path / "presets", deploy="exit 3")
    async with serving(tmp_path, models=MODELS) as server:
        job_id = (await submit(server))["job_id"]
        await ended(server, job_id)
        job = await job_of(server, job_id)
        assert (job["status"], job["phase"], job["result"]["returncode"]) == ("failed", "failed", 3)
        assert job["created_at"] <= job["started_at"] <= job["finished_at"] == job["updated_at"]
        assert job["result"]["outputs"] == {}
        assert job["result"]["duration_seconds"] >= 0
        assert "exit status 3" in job["result"]["error"]
        assert job["result"]["command"].startswith("bash ")


@asynchronous
async def test_jobs_are_listed_newest_first_by_status_and_page_by_page(tmp_path: Path) -> None:
    write_hyperpod(tmp_path / "presets")
    write_hyperpod(tmp_path / "presets", "bad", deploy="exit 1")
    async with serving(tmp_path, models=MODELS) as server:
        ids = []
        for preset in ("small", "bad", "small"):
            ids.append((await submit(server, preset=preset))["job_id"])
            await ended(server, ids[-1])
        status, listed = await get(server, "/api/hyperpod/jobs")
        assert (status, listed["status"]) == (200, "success")
        assert [job["job_id"] for job in listed["jobs"]] == ids[::-1]
        for query, expected in (
            ("limit=1", [ids[2]]),
            ("status=failed", [ids[1]]),
            ("status=running", []),
            (f"before={ids[2]}", [ids[1], ids[0]]),
            (f"before={ids[2]}&limit=1", [ids[1]]),
            (f"before={ids[2]}&status=succeeded", [ids[0]]),
        ):
            _, listed = await get(server, f"/api/hyperpod/jobs?{query}")
            assert [job["job_id"] for job in listed["jobs"]] == expected, query


@pytest.mark.parametrize(
    ("query", "status", "word"),
    [
        ("limit=0", 400, "limit"),
        ("limit=1001", 400, "limit"),
        ("limit=many", 400, "limit"),
        ("limit=-1", 400, "limit"),
        ("limit=" + "9" * 5000, 400, "limit"),
        ("status=done", 400, "status"),
        ("before=nobody", 404, "no job"),
        ("before=..%2f..%2f", 404, "no job"),
    ],
)
@asynchronous
async def test_a_list_that_is_asked_for_wrongly_is_refused(tmp_path: Path, query: str, status: int, word: str) -> None:
    async with serving(tmp_path, models=MODELS) as server:
        got, answer = await get(server, f"/api/hyperpod/jobs?{query}")
        assert got == status
        assert word in answer["error"]


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ({"presets": "small"}, "invalid_request", "presets: unknown field"),
        ({"preset": 5}, "invalid_request", "preset: expected a string"),
        ({"preset": "huge"}, "unknown_preset", "preset: there is no 'huge'"),
        ({"preset": "../small"}, "unknown_preset", "preset"),
        ({"dry_run": "yes"}, "invalid_request", "dry_run: expected true or false"),
        ({"overrides": []}, "invalid_request", "overrides: expected a mapping"),
        ({"overrides": {"cluster_tag": "UPPER"}}, "invalid_request", "overrides.cluster_tag: expected a string, match"),
        ({"overrides": {"cluster_tag": 5}}, "invalid_request", "overrides.cluster_tag: expected a string"),
        ({"overrides": {"PATH": "/bin"}}, "invalid_request", "allowed are: cluster_tag"),
        ({"confirm": 1}, "invalid_request", "confirm: expected"),
        ([], "invalid_request", "expected a mapping"),
    ],
)
@asynchronous
async def test_a_wrong_body_is_refused_with_what_was_expected(tmp_path: Path, body: Any, code: str, words: str) -> None:
    write_hyperpod(tmp_path / "presets", overrides=TAGGED)
    async with serving(tmp_path, models=MODELS) as server:
        status, answer = await post(server, "/api/hyperpod/deploy", body)
        assert (status, answer["code"]) == (400, code)
        assert words in answer["error"]
        assert await get(server, "/api/hyperpod/jobs") == (200, {"status": "success", "jobs": []})


@asynchronous
async def test_a_live_destroy_wants_the_name_of_its_stack(tmp_path: Path) -> None:
    write_hyperpod(tmp_path / "presets", destroy="true", overrides=TAGGED)
    async with serving(tmp_path, models=MODELS) as server:
        asked = {"dry_run": False, "overrides": {"cluster_tag": "a"}}
        for confirm in ({}, {"confirm": "small-stack"}, {"confirm": None}):
            status, answer = await post(server, "/api/hyperpod/destroy", {**asked, **confirm})
            assert (status, answer["code"]) == (400, "invalid_request")
            assert '"small-stack-a"' in answer["error"]
        job = await submit(server, "destroy", **asked, confirm="small-stack-a")
        assert (await ended(server, job["job_id"]))["status"] == "succeeded"


@asynchronous
async def test_without_infraforge_a_live_deploy_of_ours_says_what_to_do(tmp_path: Path) -> None:
    write_hyperpod(tmp_path / "presets", scripts={})
    async with serving(tmp_path, models=MODELS) as server:
        status, answer = await post(server, "/api/hyperpod/deploy", {"dry_run": False})
        assert (status, answer["code"]) == (503, "unavailable")
        assert "fetch_infraforge.sh" in answer["error"]
        assert "--infraforge" in answer["error"]


@asynchronous
async def test_a_second_live_job_on_a_stack_is_told_of_the_first(tmp_path: Path) -> None:
    write_hyperpod(tmp_path / "presets", deploy=UNTIL_TOLD, destroy="true")
    async with serving(tmp_path, models=MODELS) as server:
        first = (await submit(server))["job_id"]
        status, answer = await post(server, "/api/hyperpod/deploy", {"dry_run": False})
        assert (status, answer["code"]) == (409, "stack_locked")
        assert first in answer["error"]
        await ended(server, (await submit(server, dry_run=True))["job_id"])
        let_go(tmp_path, first)
        await ended(server, first)
        await ended(server, (await submit(server, "destroy", confirm="small-stack"))["job_id"])


@asynchronous
async def test_a_repeated_key_gives_the_same_job_and_another_body_a_conflict(tmp_path: Path) -> None:
    write_hyperpod(tmp_path / "presets", destroy="true")
    async with serving(tmp_path, models=MODELS) as server:
        key = {"Idempotency-Key": "once"}
        _, first = await post(server, "/api/hyperpod/deploy", {"preset": "small"}, **key)
        status, again = await post(server, "/api/hyperpod/deploy", {"preset": "small"}, **key)
        assert (status, again["job"]["job_id"]) == (202, first["job"]["job_id"])
        status, other = await post(server, "/api/hyperpod/deploy", {"preset": "small", "dry_run": True}, **key)
        assert (status, other["code"]) == (409, "idempotency_conflict")
        status, destroy = await post(server, "/api/hyperpod/destroy", {"preset": "small"}, **key)
        assert (status, destroy["job"]["action"]) == (202, "destroy")
        for bad in ("", "x" * 256):
            status, answer = await post(server, "/api/hyperpod/deploy", {}, **{"Idempotency-Key": bad})
            assert (status, answer["error"].partition(":")[0]) == (400, "Idempotency-Key")
        for job in (first, destroy):
            await ended(server, job["job"]["job_id"])


@asynchronous
async def test_a_cancelled_job_ends_and_one_that_has_ended_can_not_be_cancelled(tmp_path: Path) -> None:
    write_hyperpod(tmp_path / "presets", deploy=UNTIL_TOLD)
    async with serving(tmp_path, models=MODELS) as server:
        job_id = (await submit(server))["job_id"]
        status, answer = await post(server, f"/api/hyperpod/jobs/{job_id}/cancel")
        assert (status, answer["job"]["job_id"]) == (202, job_id)
        assert (await ended(server, job_id))["status"] == "cancelled"
        status, answer = await post(server, f"/api/hyperpod/jobs/{job_id}/cancel")
        assert (status, answer["code"]) == (409, "job_finished")


@pytest.mark.parametrize(
    "job_id", ["4514d842-2305-45b5-ad96-1e79d0261ae2", "..", "..%2f..%2fetc", "%00", "x" * 5000, "spec.json"]
)
@asynchronous
async def test_a_job_that_is_not_there_is_404_whatever_its_id(tmp_path: Path, job_id: str) -> None:
    async with serving(tmp_path, models=MODELS) as server:
        for path in (f"/api/hyperpod/jobs/{job_id}", f"/api/hyperpod/jobs/{job_id}/logs"):
            async with server.http.get(server.url + path) as response:
                assert response.status == 404
                assert (await response.json())["code"] in ("unknown_job", "not_found")
        async with server.http.post(f"{server.url}/api/hyperpod/jobs/{job_id}/cancel") as response:
            assert response.status == 404


@asynchronous
async def test_the_catalogue_tells_each_preset_and_what_may_be_overridden(tmp_path: Path) -> None:
    write_hyperpod(tmp_path / "presets", description="One node", overrides=TAGGED)
    write_hyperpod(tmp_path / "presets", "large")
    async with serving(tmp_path, models=MODELS) as server:
        status, answer = await get(server, "/api/hyperpod/presets")
        assert (status, answer["status"], answer["presets"]) == (200, "success", ["large", "small"])
        small = answer["catalogue"][1]
        assert (small["name"], small["description"], small["summary"]["stack_name"]) == (
            "small",
            "One node",
            "small-stack",
        )
        assert small["overrides"]["cluster_tag"]["env"] == "CLUSTER_TAG"
        assert small["overrides"]["cluster_tag"]["rule"] == "a string, matching ^[a-z][a-z0-9-]{0,20}$"


@asynchronous
async def test_what_a_live_deploy_leaves_standing_is_listed_until_it_is_destroyed(tmp_path: Path) -> None:
    write_hyperpod(tmp_path / "presets", destroy="true")
    async with serving(tmp_path, models=MODELS) as server:
        await ended(server, (await submit(server, dry_run=True))["job_id"])
        assert await get(server, "/api/hyperpod/stacks") == (200, {"status": "success", "stacks": []})
        job = await ended(server, (await submit(server))["job_id"])
        _, answer = await get(server, "/api/hyperpod/stacks")
        (stack,) = answer["stacks"]
        assert (stack["stack_name"], stack["region"], stack["preset"], stack["job_id"], stack["state"]) == (
            "small-stack",
            "us-east-1",
            "small",
            job["job_id"],
            "standing",
        )
        assert job["started_at"] <= stack["since"] <= job["finished_at"]
        await ended(server, (await submit(server, "destroy", confirm="small-stack"))["job_id"])
        assert await get(server, "/api/hyperpod/stacks") == (200, {"status": "success", "stacks": []})


@asynchronous
async def test_a_destroy_gets_the_configuration_that_was_deployed(tmp_path: Path) -> None:
    config = {"global": {"stackName": "small-stack"}, "size": 1}
    sized = {"size": {"env": "SIZE", "type": "integer", "sets": ["size"]}}
    write_hyperpod(tmp_path / "presets", destroy="cat config.json; echo size $SIZE", config=config, overrides=sized)
    async with serving(tmp_path, models=MODELS) as server:
        await ended(server, (await submit(server, overrides={"size": 7}))["job_id"])
        job = await submit(server, "destroy", confirm="small-stack")
        await ended(server, job["job_id"])
        async with server.http.get(
            f"{server.url}/api/hyperpod/jobs/{job['job_id']}/logs", headers={"Accept": "text/plain"}
        ) as response:
            text = await response.text()
        assert '"size": 7' in text
        assert "size 7" in text


@asynchronous
async def test_message_pack_goes_in_and_comes_out(tmp_path: Path) -> None:
    write_hyperpod(tmp_path / "presets")
    async with serving(tmp_path, models=MODELS) as server:
        headers = {"Content-Type": "application/msgpack", "Accept": "application/msgpack"}
        body = msgpack.packb({"preset": "small"})
        async with server.http.post(server.url + "/api/hyperpod/deploy", data=body, headers=headers) as response:
            assert response.status == 202
            job = msgpack.unpackb(await response.read())["job"]
        await ended(server, job["job_id"])
        for path in ("jobs", f"jobs/{job['job_id']}", "presets", "stacks"):
            async with server.http.get(f"{server.url}/api/hyperpod/{path}", headers=headers) as response:
                assert msgpack.unpackb(await response.read())["status"] == "success"


@asynchronous
async def test_a_key_is_needed_and_jobs_are_everybodys(tmp_path: Path) -> None:
    write_hyperpod(tmp_path / "presets")
    async with serving(tmp_path, models=MODELS, environ={"FORGELINE_API_KEYS": "one,two"}) as server:
        status, answer = await post(server, "/api/hyperpod/deploy", {})
        assert (status, answer["code"]) == (401, "unauthorized")
        key = {"Idempotency-Key": "k"}
        _, first = await post(server, "/api/hyperpod/deploy", {}, **{"X-API-Key": "one"}, **key)
        _, second = await post(server, "/api/hyperpod/deploy", {}, **{"X-API-Key": "two"}, **key)
        assert first["job"]["job_id"] != second["job"]["job_id"]
        headers = {"X-API-Key": "two", "Accept": "text/event-stream"}
        for job in (first, second):
            url = f"{server.url}/api/hyperpod/jobs/{job['job']['job_id']}/logs"
            async with server.http.get(url, headers=headers) as response:
                assert (await response.read()).endswith(b'data: {"type":"complete"}\n\n')


@asynchronous
async def test_the_feed_tells_every_step_and_begins_with_what_there_is(tmp_path: Path) -> None:
    write_hyperpod(tmp_path / "presets")
    async with serving(tmp_path, models=MODELS) as server:
        before = await submit(server, dry_run=True)
        ended_before = await ended(server, before["job_id"])
        async with server.http.ws_connect(server.url.replace("http", "ws") + "/ws") as socket:
            await socket.send_json({"op": "subscribe", "id": "feed", "topics": ["jobs"]})
            snapshot = await socket.receive_json()
            (job,) = snapshot["jobs"]
            assert (job["job_id"], job["status"]) == (before["job_id"], "succeeded")
            assert ended_before["result"]["plan"]["names"]
            assert "plan" not in job["result"]  # a hundred plans would be megabytes
            job_id = (await submit(server))["job_id"]
            told: list[str] = []
            while not told or told[-1] != "succeeded":
                message = json.loads(await socket.receive_str())
                assert (message["type"], message["job_id"]) == ("job", job_id)
                told.append(message["status"])
            assert list(dict.fromkeys(told)) == ["queued", "running", "succeeded"]
