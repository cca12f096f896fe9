"""The clusters page in a real browser: presets, overrides, plans, a real job with its log, stacks, destroys."""

from __future__ import annotations

from pathlib import Path

from playwright.async_api import Page, expect

from tests.console.browser import browser_test, open_page
from tests.console.test_playground import drop_connections
from tests.jobs import submit, write_hyperpod_preset
from tests.running_server import running_server

HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>"
COUNT_RULE = {
    "env": "GPU_INSTANCE_COUNT",
    "type": "integer",
    "minimum": 0,
    "maximum": 64,
    "description": "How many nodes",
}
TAG_RULE = {"env": "CLUSTER_TAG", "pattern": "^[a-z][a-z0-9-]{0,20}$", "description": "Part of every name"}
WAITING_SCRIPT = "echo before; until [ -e {go} ]; do sleep 0.05; done; echo after"


def log_row(page: Page, number: int) -> str:
    return f".log-row:has(.log-number:text-is('{number}')) .log-text"


@browser_test()
async def test_deploy_dry_run_then_live_then_destroy(tmp_path: Path) -> None:
    deploy = "printf '\\033[32mgreen\\033[0m plain\\n'; echo \"count=$GPU_INSTANCE_COUNT\""
    write_hyperpod_preset(
        tmp_path / "presets", deploy=deploy, destroy="echo gone", overrides={"gpu_instance_count": COUNT_RULE}
    )
    async with running_server(tmp_path) as server, open_page(server.url, "clusters") as page:
        await page.get_by_role("link", name="small").click()
        await page.get_by_label("gpu_instance_count").fill("3")
        await page.get_by_role("button", name="Dry run").click()
        await expect(page.get_by_role("heading", name="Plan")).to_be_visible()
        await expect(page.locator(".plan")).to_contain_text("small-stack")
        await page.get_by_role("button", name="Deploy this").click()
        await page.get_by_role("dialog").get_by_role("button", name="Deploy", exact=True).click()
        await expect(page.get_by_role("heading", name="Deploy small", exact=True)).to_be_visible()
        await expect(page.locator(".job .card .badge").first).to_have_text("Succeeded")
        await expect(page.locator(log_row(page, 1))).to_have_text("green plain")
        await expect(page.locator(log_row(page, 1)).locator(".sgr-32")).to_have_text("green")
        await expect(page.locator(log_row(page, 2))).to_have_text("count=3")
        await page.get_by_role("button", name="Destroy small-stack").click()
        dialog = page.get_by_role("dialog")
        destroy = dialog.get_by_role("button", name="Destroy", exact=True)
        await dialog.get_by_label("Type small-stack to confirm").fill("small-stac")
        await expect(destroy).to_be_disabled()
        await dialog.get_by_label("Type small-stack to confirm").fill("small-stack")
        await destroy.click()
        await expect(page.get_by_role("heading", name="Destroy small")).to_be_visible()
        await expect(page.locator(".job .card .badge").first).to_have_text("Succeeded")
        await expect(page.get_by_text("no live deploy has left a stack")).to_be_visible()


@browser_test()
async def test_overrides_invalid_input_shows_error_and_blocks_submit(tmp_path: Path) -> None:
    write_hyperpod_preset(tmp_path / "presets", overrides={"gpu_instance_count": COUNT_RULE, "cluster_tag": TAG_RULE})
    invalid = {
        "gpu_instance_count": {"65": "at most 64", "-1": "at least 0", "two": "a whole number"},
        "cluster_tag": {"9x": "matches", "A": "matches", "a b": "matches"},
    }
    async with running_server(tmp_path) as server, open_page(server.url, "clusters/deploy/small") as page:
        for name, texts in invalid.items():
            field, problem = page.get_by_label(name), page.locator(f"#override-{name}-problem")
            for text, message in texts.items():
                await field.fill(text)
                await expect(problem).to_contain_text(message)
                await expect(field).to_have_attribute("aria-invalid", "true")
            await page.get_by_role("button", name="Dry run").click()
            await expect(field).to_be_focused()
            await field.fill("")
            await expect(problem).to_be_hidden()
        assert server.services.jobs.list_jobs(10) == []


@browser_test()
async def test_log_lost_connection_resumes_live_log(tmp_path: Path) -> None:
    go_file = tmp_path / "go"
    write_hyperpod_preset(tmp_path / "presets", deploy=WAITING_SCRIPT.format(go=go_file))
    async with running_server(tmp_path) as server, open_page(server.url, "clusters") as page:
        job = await submit(server)
        await page.get_by_role("link", name="Deploy small").click()
        await expect(page.locator(log_row(page, 1))).to_have_text("before")
        await expect(page.locator(".log .badge")).to_have_text("Live")
        drop_connections(server)
        await expect(page.locator("#connection")).to_have_text("Offline")
        go_file.touch()
        await expect(page.locator(log_row(page, 2))).to_have_text("after")
        await expect(page.locator(".log .badge")).to_have_text("Complete")
        await expect(page.locator(".log-row")).to_have_count(2)
        assert job["job_id"] in page.url


@browser_test()
async def test_cancel_after_confirmation_cancels_job(tmp_path: Path) -> None:
    write_hyperpod_preset(tmp_path / "presets", deploy="echo begun; sleep 1000")
    async with running_server(tmp_path) as server, open_page(server.url, "clusters") as page:
        job = await submit(server)
        await page.goto(f"{server.url}/#/clusters/jobs/{job['job_id']}")
        await expect(page.locator(log_row(page, 1))).to_have_text("begun")
        await page.get_by_role("button", name="Cancel").click()
        await page.get_by_role("dialog").get_by_role("button", name="Cancel the job").click()
        await expect(page.locator(".job .card .badge").first).to_have_text("Cancelled")


@browser_test()
async def test_job_failure_shows_reason(tmp_path: Path) -> None:
    write_hyperpod_preset(tmp_path / "presets", deploy="echo no >&2; exit 3")
    async with running_server(tmp_path) as server, open_page(server.url, "clusters") as page:
        await submit(server)
        await page.get_by_role("link", name="Deploy small").click()
        await expect(page.locator(".job .card .badge").first).to_have_text("Failed")
        await expect(page.locator(".job .notice")).to_contain_text("3")


@browser_test()
async def test_log_and_preset_markup_is_shown_as_text(tmp_path: Path) -> None:
    escapes = r"\033]0;title\007\033]8;;javascript:alert(3)\007link\033]8;;\007\033[2J\033[38;5;196mred\033[0m\001"
    write_hyperpod_preset(tmp_path / "presets", deploy=f"echo '{HOSTILE}'; printf '{escapes}\\n'", description=HOSTILE)
    async with running_server(tmp_path) as server, open_page(server.url, "clusters/deploy/small") as page:
        await expect(page.locator(".deploy")).to_contain_text(HOSTILE)
        await expect(page.locator(".side-row").first).to_contain_text(HOSTILE)
        job = await submit(server)
        await page.goto(f"{server.url}/#/clusters/jobs/{job['job_id']}")
        await expect(page.locator(log_row(page, 1))).to_have_text(HOSTILE)
        await expect(page.locator(log_row(page, 2))).to_have_text("linkred\u2401")
        await expect(page.locator(log_row(page, 2)).locator(".sgr-91")).to_have_text("red")
        assert await page.locator("main img, main script, .log-text a").count() == 0


@browser_test()
async def test_log_carriage_return_overwrites_line(tmp_path: Path) -> None:
    bar = "for i in $(seq 0 2000); do printf '\\rdone %d of 2000' $i; done; echo; printf 'long line\\rshort\\n'"
    write_hyperpod_preset(tmp_path / "presets", deploy=bar)
    async with running_server(tmp_path) as server, open_page(server.url, "clusters") as page:
        job = await submit(server)
        await page.goto(f"{server.url}/#/clusters/jobs/{job['job_id']}")
        await expect(page.locator(".log .badge")).to_have_text("Complete")
        await expect(page.locator(log_row(page, 1))).to_have_text("done 2000 of 2000")
        await expect(page.locator(log_row(page, 2))).to_have_text("shortline")


@browser_test()
async def test_log_line_link_search_go_to_and_download(tmp_path: Path) -> None:
    write_hyperpod_preset(
        tmp_path / "presets", deploy="for i in $(seq 1 3000); do echo line $i; done; echo Needle; echo end"
    )
    async with running_server(tmp_path) as server, open_page(server.url, "clusters") as page:
        job = await submit(server)
        await page.goto(f"{server.url}/#/clusters/jobs/{job['job_id']}/L1500")
        await expect(page.locator(log_row(page, 1500))).to_have_text("line 1500")
        await expect(page.locator(".log-row[data-highlight=target] .log-text")).to_have_text("line 1500")
        await expect(page.locator(".log .badge")).to_have_text("Complete")
        await page.get_by_role("button", name="Follow").click()
        await expect(page.locator(log_row(page, 3002))).to_be_visible()
        await page.locator(".log-rows").focus()
        await page.keyboard.press("/")
        await page.keyboard.type("needle")
        await expect(page.locator(".match-count")).to_have_text("1 of 1 line")
        await expect(page.locator(".log-row mark")).to_have_text("Needle")
        await page.get_by_label("Go to line").fill("7")
        await page.keyboard.press("Enter")
        await expect(page.locator(".log-row[data-highlight=target] .log-text")).to_have_text("line 7")
        assert page.url.endswith("/L7")
        await page.get_by_label("Go to line").fill("3003")
        await page.keyboard.press("Enter")
        await expect(page.locator(".log").get_by_role("alert")).to_have_text("There is no line 3003.")
        async with page.expect_download() as download:
            await page.get_by_role("button", name="Save the log").click()
        await (await download.value).save_as(tmp_path / "saved.log")
    assert (tmp_path / "saved.log").read_text().count("\n") == 3002


@browser_test()
async def test_unknown_job_and_preset_show_not_found(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, open_page(server.url, "clusters/jobs/nothing") as page:
        await expect(page.locator(".state[role=alert]")).to_be_visible()
        await page.goto(f"{server.url}/#/clusters/deploy/nothing")
        await expect(page.get_by_text("No such preset")).to_be_visible()
        await page.goto(f"{server.url}/#/clusters")
        await expect(page.get_by_text("No job has been submitted yet")).to_be_visible()
        await expect(page.get_by_text("presets/hyperpod/NAME.yaml")).to_be_visible()
