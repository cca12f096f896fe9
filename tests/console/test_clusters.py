"""The clusters in a real browser: presets, overrides, the plan, a real job with its log, what stands, destroying it."""

from __future__ import annotations

from pathlib import Path

from playwright.async_api import Page, expect

from tests.console.browser import browsing, in_browser
from tests.console.test_playground import cut
from tests.jobs import submit, write_hyperpod
from tests.serving import serving

HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>"
COUNT = {"env": "GPU_INSTANCE_COUNT", "type": "integer", "minimum": 0, "maximum": 64, "description": "How many nodes"}
TAG = {"env": "CLUSTER_TAG", "pattern": "^[a-z][a-z0-9-]{0,20}$", "description": "Part of every name"}
WAITS = "echo before; until [ -e {go} ]; do sleep 0.05; done; echo after"


def log_row(page: Page, number: int) -> str:
    return f".log-row:has(.log-number:text-is('{number}')) .log-text"


@in_browser()
async def test_a_preset_is_deployed_dry_first_then_for_real_followed_and_destroyed(tmp_path: Path) -> None:
    deploy = "printf '\\033[32mgreen\\033[0m plain\\n'; echo \"count=$GPU_INSTANCE_COUNT\""
    write_hyperpod(tmp_path / "presets", deploy=deploy, destroy="echo gone", overrides={"gpu_instance_count": COUNT})
    async with serving(tmp_path) as server, browsing(server.url, "clusters") as page:
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


@in_browser()
async def test_overrides_are_checked_as_they_are_typed(tmp_path: Path) -> None:
    write_hyperpod(tmp_path / "presets", overrides={"gpu_instance_count": COUNT, "cluster_tag": TAG})
    wrong = {
        "gpu_instance_count": {"65": "at most 64", "-1": "at least 0", "two": "a whole number"},
        "cluster_tag": {"9x": "matches", "A": "matches", "a b": "matches"},
    }
    async with serving(tmp_path) as server, browsing(server.url, "clusters/deploy/small") as page:
        for name, texts in wrong.items():
            field, problem = page.get_by_label(name), page.locator(f"#override-{name}-problem")
            for text, why in texts.items():
                await field.fill(text)
                await expect(problem).to_contain_text(why)
                await expect(field).to_have_attribute("aria-invalid", "true")
            await page.get_by_role("button", name="Dry run").click()
            await expect(field).to_be_focused()
            await field.fill("")
            await expect(problem).to_be_hidden()
        assert server.services.jobs.newest(10) == []


@in_browser()
async def test_a_job_is_followed_live_over_a_cut_connection(tmp_path: Path) -> None:
    go = tmp_path / "go"
    write_hyperpod(tmp_path / "presets", deploy=WAITS.format(go=go))
    async with serving(tmp_path) as server, browsing(server.url, "clusters") as page:
        job = await submit(server)
        await page.get_by_role("link", name="Deploy small").click()
        await expect(page.locator(log_row(page, 1))).to_have_text("before")
        await expect(page.locator(".log .badge")).to_have_text("Live")
        cut(server)
        await expect(page.locator("#connection")).to_have_text("Offline")
        go.touch()
        await expect(page.locator(log_row(page, 2))).to_have_text("after")
        await expect(page.locator(".log .badge")).to_have_text("Complete")
        await expect(page.locator(".log-row")).to_have_count(2)
        assert job["job_id"] in page.url


@in_browser()
async def test_a_job_is_cancelled_after_asking(tmp_path: Path) -> None:
    write_hyperpod(tmp_path / "presets", deploy="echo begun; sleep 1000")
    async with serving(tmp_path) as server, browsing(server.url, "clusters") as page:
        job = await submit(server)
        await page.goto(f"{server.url}/#/clusters/jobs/{job['job_id']}")
        await expect(page.locator(log_row(page, 1))).to_have_text("begun")
        await page.get_by_role("button", name="Cancel").click()
        await page.get_by_role("dialog").get_by_role("button", name="Cancel the job").click()
        await expect(page.locator(".job .card .badge").first).to_have_text("Cancelled")


@in_browser()
async def test_a_job_that_fails_says_why(tmp_path: Path) -> None:
    write_hyperpod(tmp_path / "presets", deploy="echo no >&2; exit 3")
    async with serving(tmp_path) as server, browsing(server.url, "clusters") as page:
        await submit(server)
        await page.get_by_role("link", name="Deploy small").click()
        await expect(page.locator(".job .card .badge").first).to_have_text("Failed")
        await expect(page.locator(".job .notice")).to_contain_text("3")


@in_browser()
async def test_hostile_logs_and_presets_are_shown_as_text(tmp_path: Path) -> None:
    escapes = r"\033]0;title\007\033]8;;javascript:alert(3)\007link\033]8;;\007\033[2J\033[38;5;196mred\033[0m\001"
    write_hyperpod(tmp_path / "presets", deploy=f"echo '{HOSTILE}'; printf '{escapes}\\n'", description=HOSTILE)
    async with serving(tmp_path) as server, browsing(server.url, "clusters/deploy/small") as page:
        await expect(page.locator(".deploy")).to_contain_text(HOSTILE)
        await expect(page.locator(".side-row").first).to_contain_text(HOSTILE)
        job = await submit(server)
        await page.goto(f"{server.url}/#/clusters/jobs/{job['job_id']}")
        await expect(page.locator(log_row(page, 1))).to_have_text(HOSTILE)
        await expect(page.locator(log_row(page, 2))).to_have_text("linkred\u2401")
        await expect(page.locator(log_row(page, 2)).locator(".sgr-91")).to_have_text("red")
        assert await page.locator("main img, main script, .log-text a").count() == 0


@in_browser()
async def test_a_progress_bar_overwrites_its_line(tmp_path: Path) -> None:
    bar = "for i in $(seq 0 2000); do printf '\\rdone %d of 2000' $i; done; echo; printf 'long line\\rshort\\n'"
    write_hyperpod(tmp_path / "presets", deploy=bar)
    async with serving(tmp_path) as server, browsing(server.url, "clusters") as page:
        job = await submit(server)
        await page.goto(f"{server.url}/#/clusters/jobs/{job['job_id']}")
        await expect(page.locator(".log .badge")).to_have_text("Complete")
        await expect(page.locator(log_row(page, 1))).to_have_text("done 2000 of 2000")
        await expect(page.locator(log_row(page, 2))).to_have_text("shortline")


@in_browser()
async def test_a_line_is_linked_to_found_and_gone_to(tmp_path: Path) -> None:
    write_hyperpod(tmp_path / "presets", deploy="for i in $(seq 1 3000); do echo line $i; done; echo Needle; echo end")
    async with serving(tmp_path) as server, browsing(server.url, "clusters") as page:
        job = await submit(server)
        await page.goto(f"{server.url}/#/clusters/jobs/{job['job_id']}/L1500")
        await expect(page.locator(log_row(page, 1500))).to_have_text("line 1500")
        await expect(page.locator(".log-row[data-at=target] .log-text")).to_have_text("line 1500")
        await expect(page.locator(".log .badge")).to_have_text("Complete")
        await page.get_by_role("button", name="Follow").click()
        await expect(page.locator(log_row(page, 3002))).to_be_visible()
        await page.locator(".log-rows").focus()
        await page.keyboard.press("/")
        await page.keyboard.type("needle")
        await expect(page.locator(".found")).to_have_text("1 of 1 line")
        await expect(page.locator(".log-row mark")).to_have_text("Needle")
        await page.get_by_label("Go to line").fill("7")
        await page.keyboard.press("Enter")
        await expect(page.locator(".log-row[data-at=target] .log-text")).to_have_text("line 7")
        assert page.url.endswith("/L7")
        await page.get_by_label("Go to line").fill("3003")
        await page.keyboard.press("Enter")
        await expect(page.locator(".log").get_by_role("alert")).to_have_text("There is no line 3003.")
        async with page.expect_download() as saved:
            await page.get_by_role("button", name="Save the log").click()
        await (await saved.value).save_as(tmp_path / "saved.log")
    assert (tmp_path / "saved.log").read_text().count("\n") == 3002


@in_browser()
async def test_a_job_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, browsing(server.url, "clusters/jobs/nothing") as page:
        await expect(page.locator(".state[role=alert]")).to_be_visible()
        await page.goto(f"{server.url}/#/clusters/deploy/nothing")
        await expect(page.get_by_text("No such preset")).to_be_visible()
        await page.goto(f"{server.url}/#/clusters")
        await expect(page.get_by_text("No job has been submitted yet")).to_be_visible()
        await expect(page.get_by_text("presets/hyperpod/NAME.yaml")).to_be_visible()
