"""The endpoints of jobs, stacks and HyperPod presets."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import msgpack
import pytest

from tests.async_tests import async_test
from tests.jobs import get_job, post_json, submit, wait_for_job, write_hyperpod_preset
from tests.running_server import RunningServer, running_server, scripted_model

MODELS = {"m": scripted_model("echo")}
TAG_OVERRIDE = {"cluster_tag": {"env": "CLUSTER_TAG", "type": "string", "pattern": "^[a-z][a-z0-9-]{0,20}$"}}
WAIT_FOR_RELEASE = "until [ -e go ]; do sleep 0.05; done"
"""A script that waits for a file in its work directory."""


def release_script(tmp_path: Path, job_id: str) -> None:
    (tmp_path / "data" / "jobs" / job_id / "work" / "go").touch()


async def get_json(server: RunningServer, path: str) -> tuple[int, dict[str, Any]]:
    async with server.http.get(server.url + path) as response:
        return response.status, await response.json()


@async_test
async def test_deploy_responds_at_once_with_job(tmp_path: Path) -> None:
    write_hyperpod_preset(tmp_path / "presets")
    async with running_server(tmp_path, models=MODELS) as server:
        body = {"preset": "small", "dry_run": False}
        async with server.http.post(server.url + "/api/hyperpod/deploy", json=body) as response:
            answer = await response.json()
        job = answer["job"]
        assert (response.status, answer["status"]) == (202, "submitted")
        assert response.headers["Location"] == f"/api/hyperpod/jobs/{job['job_id']}"
        assert str(uuid.UUID(job["job_id"])) == job["job_id"]
        fields = {
            key: job[key] for key in ("status", "action", "preset", "dry_run", "region", "stack_name", "overrides")
        }
        assert fields == {
            "status": "queued",
            "action": "deploy",
            "preset": "small",
            "dry_run": False,
            "region": "us-east-1",
            "stack_name": "small-stack",
            "overrides": {},
        }
        assert job["created_at"].endswith("+00:00")
        await wait_for_job(server, job["job_id"])


@async_test
async def test_deploy_and_destroy_of_reference_are_accepted(tmp_path: Path) -> None:
    write_hyperpod_preset(
        tmp_path / "presets", overrides={"region": {"env": "AWS_REGION"}, **TAG_OVERRIDE}, destroy="true", deploy="true"
    )
    async with running_server(tmp_path, models=MODELS) as server:
        overrides = {"region": "us-west-2", "cluster_tag": "demo-cluster-001"}
        deploy = {"preset": "small", "dry_run": True, "overrides": overrides}
        status, answer = await post_json(server, "/api/hyperpod/deploy", deploy)
        assert (status, answer["job"]["dry_run"], answer["job"]["region"]) == (202, True, "us-west-2")
        destroy = {"preset": "small", "overrides": {"region": "us-west-2"}}
        status, destroyed = await post_json(server, "/api/hyperpod/destroy", destroy)
        assert (status, destroyed["job"]["action"], destroyed["job"]["dry_run"]) == (202, "destroy", True)
        for job in (answer["job"], destroyed["job"]):
            assert (await wait_for_job(server, job["job_id"]))["status"] == "succeeded"


@async_test
async def test_preset_and_dry_run_have_defaults(tmp_path: Path) -> None:
    write_hyperpod_preset(tmp_path / "presets")
    async with running_server(tmp_path, models=MODELS) as server:
        _, dry = await post_json(server, "/api/hyperpod/deploy", {})
        assert (dry["job"]["preset"], dry["job"]["dry_run"]) == ("small", True)
        await wait_for_job(server, dry["job"]["job_id"])
    async with running_server(tmp_path, "--dry-run=false", models=MODELS) as server:
        _, live = await post_json(server, "/api/hyperpod/deploy", {})
        assert live["job"]["dry_run"] is False
        _, dry = await post_json(server, "/api/hyperpod/deploy", {"dry_run": True})
        assert dry["job"]["dry_run"] is True
        for answer in (live, dry):
            await wait_for_job(server, answer["job"]["job_id"])


@async_test
async def test_finished_job_has_times_and_result(tmp_path: Path) -> None:
    write_hyperpod_preset(tmp_path / "presets", deploy="exit 3")
    async with running_server(tmp_path, models=MODELS) as server:
        job_id = (await submit(server))["job_id"]
        await wait_for_job(server, job_id)
        job = await get_job(server, job_id)
        assert (job["status"], job["phase"], job["result"]["returncode"]) == ("failed", "failed", 3)
        assert job["created_at"] <= job["started_at"] <= job["finished_at"] == job["updated_at"]
        assert job["result"]["outputs"] == {}
        assert job["result"]["duration_seconds"] >= 0
        assert "exit status 3" in job["result"]["error"]
        assert job["result"]["command"].startswith("bash ")


@async_test
async def test_list_jobs_newest_first_by_status_and_page(tmp_path: Path) -> None:
    write_hyperpod_preset(tmp_path / "presets")
    write_hyperpod_preset(tmp_path / "presets", "bad", deploy="exit 1")
    async with running_server(tmp_path, models=MODELS) as server:
        ids = []
        for preset in ("small", "bad", "small"):
            ids.append((await submit(server, preset=preset))["job_id"])
            await wait_for_job(server, ids[-1])
        status, listed = await get_json(server, "/api/hyperpod/jobs")
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
            _, listed = await get_json(server, f"/api/hyperpod/jobs?{query}")
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
@async_test
async def test_list_jobs_with_invalid_query_is_rejected(tmp_path: Path, query: str, status: int, word: str) -> None:
    async with running_server(tmp_path, models=MODELS) as server:
        response_status, answer = await get_json(server, f"/api/hyperpod/jobs?{query}")
        assert response_status == status
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
@async_test
async def test_invalid_deploy_body_is_rejected(tmp_path: Path, body: Any, code: str, words: str) -> None:
    write_hyperpod_preset(tmp_path / "presets", overrides=TAG_OVERRIDE)
    async with running_server(tmp_path, models=MODELS) as server:
        status, answer = await post_json(server, "/api/hyperpod/deploy", body)
        assert (status, answer["code"]) == (400, code)
        assert words in answer["error"]
        assert await get_json(server, "/api/hyperpod/jobs") == (200, {"status": "success", "jobs": []})


@async_test
async def test_live_destroy_requires_confirm(tmp_path: Path) -> None:
    write_hyperpod_preset(tmp_path / "presets", destroy="true", overrides=TAG_OVERRIDE)
    async with running_server(tmp_path, models=MODELS) as server:
        body = {"dry_run": False, "overrides": {"cluster_tag": "a"}}
        for confirm in ({}, {"confirm": "small-stack"}, {"confirm": None}):
            status, answer = await post_json(server, "/api/hyperpod/destroy", {**body, **confirm})
            assert (status, answer["code"]) == (400, "invalid_request")
            assert '"small-stack-a"' in answer["error"]
        job = await submit(server, "destroy", **body, confirm="small-stack-a")
        assert (await wait_for_job(server, job["job_id"]))["status"] == "succeeded"


@async_test
async def test_live_deploy_without_infraforge_says_what_to_do(tmp_path: Path) -> None:
    write_hyperpod_preset(tmp_path / "presets", scripts={})
    async with running_server(tmp_path, models=MODELS) as server:
        status, answer = await post_json(server, "/api/hyperpod/deploy", {"dry_run": False})
        assert (status, answer["code"]) == (503, "unavailable")
        assert "fetch_infraforge.sh" in answer["error"]
        assert "--infraforge" in answer["error"]


@async_test
async def test_second_live_job_on_stack_is_rejected_with_first_job_id(tmp_path: Path) -> None:
    write_hyperpod_preset(tmp_path / "presets", deploy=WAIT_FOR_RELEASE, destroy="true")
    async with running_server(tmp_path, models=MODELS) as server:
        first = (await submit(server))["job_id"]
        status, answer = await post_json(server, "/api/hyperpod/deploy", {"dry_run": False})
        assert (status, answer["code"]) == (409, "stack_locked")
        assert first in answer["error"]
        await wait_for_job(server, (await submit(server, dry_run=True))["job_id"])
        release_script(tmp_path, first)
        await wait_for_job(server, first)
        await wait_for_job(server, (await submit(server, "destroy", confirm="small-stack"))["job_id"])


@async_test
async def test_idempotency_key_returns_same_job_or_conflict(tmp_path: Path) -> None:
    write_hyperpod_preset(tmp_path / "presets", destroy="true")
    async with running_server(tmp_path, models=MODELS) as server:
        key = {"Idempotency-Key": "once"}
        _, first = await post_json(server, "/api/hyperpod/deploy", {"preset": "small"}, **key)
        status, again = await post_json(server, "/api/hyperpod/deploy", {"preset": "small"}, **key)
        assert (status, again["job"]["job_id"]) == (202, first["job"]["job_id"])
        status, other = await post_json(server, "/api/hyperpod/deploy", {"preset": "small", "dry_run": True}, **key)
        assert (status, other["code"]) == (409, "idempotency_conflict")
        status, destroy = await post_json(server, "/api/hyperpod/destroy", {"preset": "small"}, **key)
        assert (status, destroy["job"]["action"]) == (202, "destroy")
        for invalid_key in ("", "x" * 256):
            status, answer = await post_json(server, "/api/hyperpod/deploy", {}, **{"Idempotency-Key": invalid_key})
            assert (status, answer["error"].partition(":")[0]) == (400, "Idempotency-Key")
        for job in (first, destroy):
            await wait_for_job(server, job["job"]["job_id"])


@async_test
async def test_cancel_ends_job_and_is_rejected_afterwards(tmp_path: Path) -> None:
    write_hyperpod_preset(tmp_path / "presets", deploy=WAIT_FOR_RELEASE)
    async with running_server(tmp_path, models=MODELS) as server:
        job_id = (await submit(server))["job_id"]
        status, answer = await post_json(server, f"/api/hyperpod/jobs/{job_id}/cancel")
        assert (status, answer["job"]["job_id"]) == (202, job_id)
        assert (await wait_for_job(server, job_id))["status"] == "cancelled"
        status, answer = await post_json(server, f"/api/hyperpod/jobs/{job_id}/cancel")
        assert (status, answer["code"]) == (409, "job_finished")


@pytest.mark.parametrize(
    "job_id", ["4514d842-2305-45b5-ad96-1e79d0261ae2", "..", "..%2f..%2fetc", "%00", "x" * 5000, "spec.json"]
)
@async_test
async def test_unknown_job_is_404_whatever_its_id(tmp_path: Path, job_id: str) -> None:
    async with running_server(tmp_path, models=MODELS) as server:
        for path in (f"/api/hyperpod/jobs/{job_id}", f"/api/hyperpod/jobs/{job_id}/logs"):
            async with server.http.get(server.url + path) as response:
                assert response.status == 404
                assert (await response.json())["code"] in ("unknown_job", "not_found")
        async with server.http.post(f"{server.url}/api/hyperpod/jobs/{job_id}/cancel") as response:
            assert response.status == 404


@async_test
async def test_preset_catalogue_lists_overrides(tmp_path: Path) -> None:
    write_hyperpod_preset(tmp_path / "presets", description="One node", overrides=TAG_OVERRIDE)
    write_hyperpod_preset(tmp_path / "presets", "large")
    async with running_server(tmp_path, models=MODELS) as server:
        status, answer = await get_json(server, "/api/hyperpod/presets")
        assert (status, answer["status"], answer["presets"]) == (200, "success", ["large", "small"])
        small = answer["catalogue"][1]
        assert (small["name"], small["description"], small["summary"]["stack_name"]) == (
            "small",
            "One node",
            "small-stack",
        )
        assert small["overrides"]["cluster_tag"]["env"] == "CLUSTER_TAG"
        assert small["overrides"]["cluster_tag"]["rule"] == "a string, matching ^[a-z][a-z0-9-]{0,20}$"


@async_test
async def test_stack_is_listed_from_live_deploy_until_destroy(tmp_path: Path) -> None:
    write_hyperpod_preset(tmp_path / "presets", destroy="true")
    async with running_server(tmp_path, models=MODELS) as server:
        await wait_for_job(server, (await submit(server, dry_run=True))["job_id"])
        assert await get_json(server, "/api/hyperpod/stacks") == (200, {"status": "success", "stacks": []})
        job = await wait_for_job(server, (await submit(server))["job_id"])
        _, answer = await get_json(server, "/api/hyperpod/stacks")
        (stack,) = answer["stacks"]
        assert (stack["stack_name"], stack["region"], stack["preset"], stack["job_id"], stack["state"]) == (
            "small-stack",
            "us-east-1",
            "small",
            job["job_id"],
            "standing",
        )
        assert job["started_at"] <= stack["since"] <= job["finished_at"]
        await wait_for_job(server, (await submit(server, "destroy", confirm="small-stack"))["job_id"])
        assert await get_json(server, "/api/hyperpod/stacks") == (200, {"status": "success", "stacks": []})


@async_test
async def test_destroy_gets_deployed_config(tmp_path: Path) -> None:
    config = {"global": {"stackName": "small-stack"}, "size": 1}
    sized = {"size": {"env": "SIZE", "type": "integer", "sets": ["size"]}}
    write_hyperpod_preset(
        tmp_path / "presets", destroy="cat config.json; echo size $SIZE", config=config, overrides=sized
    )
    async with running_server(tmp_path, models=MODELS) as server:
        await wait_for_job(server, (await submit(server, overrides={"size": 7}))["job_id"])
        job = await submit(server, "destroy", confirm="small-stack")
        await wait_for_job(server, job["job_id"])
        async with server.http.get(
            f"{server.url}/api/hyperpod/jobs/{job['job_id']}/logs", headers={"Accept": "text/plain"}
        ) as response:
            text = await response.text()
        assert '"size": 7' in text
        assert "size 7" in text


@async_test
async def test_job_requests_and_responses_in_messagepack(tmp_path: Path) -> None:
    write_hyperpod_preset(tmp_path / "presets")
    async with running_server(tmp_path, models=MODELS) as server:
        headers = {"Content-Type": "application/msgpack", "Accept": "application/msgpack"}
        body = msgpack.packb({"preset": "small"})
        async with server.http.post(server.url + "/api/hyperpod/deploy", data=body, headers=headers) as response:
            assert response.status == 202
            job = msgpack.unpackb(await response.read())["job"]
        await wait_for_job(server, job["job_id"])
        for path in ("jobs", f"jobs/{job['job_id']}", "presets", "stacks"):
            async with server.http.get(f"{server.url}/api/hyperpod/{path}", headers=headers) as response:
                assert msgpack.unpackb(await response.read())["status"] == "success"


@async_test
async def test_jobs_require_api_key_and_are_shared_by_keys(tmp_path: Path) -> None:
    write_hyperpod_preset(tmp_path / "presets")
    async with running_server(tmp_path, models=MODELS, environ={"FORGELINE_API_KEYS": "one,two"}) as server:
        status, answer = await post_json(server, "/api/hyperpod/deploy", {})
        assert (status, answer["code"]) == (401, "unauthorized")
        key = {"Idempotency-Key": "k"}
        _, first = await post_json(server, "/api/hyperpod/deploy", {}, **{"X-API-Key": "one"}, **key)
        _, second = await post_json(server, "/api/hyperpod/deploy", {}, **{"X-API-Key": "two"}, **key)
        assert first["job"]["job_id"] != second["job"]["job_id"]
        headers = {"X-API-Key": "two", "Accept": "text/event-stream"}
        for job in (first, second):
            url = f"{server.url}/api/hyperpod/jobs/{job['job']['job_id']}/logs"
            async with server.http.get(url, headers=headers) as response:
                assert (await response.read()).endswith(b'data: {"type":"complete"}\n\n')


@async_test
async def test_job_feed_begins_with_snapshot_and_has_every_status(tmp_path: Path) -> None:
    write_hyperpod_preset(tmp_path / "presets")
    async with running_server(tmp_path, models=MODELS) as server:
        before = await submit(server, dry_run=True)
        ended_before = await wait_for_job(server, before["job_id"])
        async with server.http.ws_connect(server.url.replace("http", "ws") + "/ws") as socket:
            await socket.send_json({"op": "subscribe", "id": "feed", "topics": ["jobs"]})
            snapshot = await socket.receive_json()
            (job,) = snapshot["jobs"]
            assert (job["job_id"], job["status"]) == (before["job_id"], "succeeded")
            assert ended_before["result"]["plan"]["names"]
            assert "plan" not in job["result"]  # a hundred plans would be megabytes
            job_id = (await submit(server))["job_id"]
            statuses: list[str] = []
            while not statuses or statuses[-1] != "succeeded":
                message = json.loads(await socket.receive_str())
                assert (message["type"], message["job_id"]) == ("job", job_id)
                statuses.append(message["status"])
            assert list(dict.fromkeys(statuses)) == ["queued", "running", "succeeded"]
