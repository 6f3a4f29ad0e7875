"""The page in a headless browser: both directions, keyboard, names for screen readers, phone and desktop."""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from tests.service.browser import CHROMIUM, Browser, chromium
from tests.service.fake import picture
from tests.service.served import Served
from tests.service.test_local import command
from uniemo_ray.inference.uniemo import UniEmo
from uniemo_ray.service.tokens import TokenFile, add_token
from uniemo_ray.service.workers.model_registry import ModelRegistry

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(900),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]

DESKTOP, PHONE = (1280, 900), (390, 844)
SHOTS = os.environ.get("UNIEMO_TEST_SCREENSHOTS")
"""A folder for screenshots."""


@pytest.fixture(scope="module")
def registry(model_folder) -> ModelRegistry:
    return ModelRegistry(models={"default": os.environ.get("UNIEMO_TEST_MODEL", str(model_folder))})


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("generations")


@pytest.fixture(scope="module")
def url(registry, store) -> Iterator[str]:
    with Served(registry, store) as url:
        yield url


@pytest.fixture
def photo(tmp_path) -> Path:
    path = tmp_path / "photo.png"
    given = os.environ.get("UNIEMO_TEST_PICTURE")
    path.write_bytes(Path(given).read_bytes() if given else picture(3))
    return path


async def shoot(browser: Browser, name: str) -> None:
    if SHOTS:
        Path(SHOTS).mkdir(parents=True, exist_ok=True)
        await browser.screenshot(Path(SHOTS, f"{name}.png"))


async def check_sound(browser: Browser, url: str) -> None:
    """Assert that nothing failed, nothing came from another server and nothing overflows the page."""
    assert browser.errors == []
    foreign = [r for r in browser.requests if not r.startswith((url, "data:", f"blob:{url}", "about:"))]
    assert foreign == []
    assert await browser.run("document.documentElement.scrollWidth <= innerWidth"), (
        "the page scrolls sideways"
    )


@pytest.mark.parametrize(
    ("size", "is_dark"), [(DESKTOP, False), (DESKTOP, True), (PHONE, False), (PHONE, True)]
)
def test_both_directions(url, photo, tmp_path, size, is_dark):
    async def visit() -> None:
        async with chromium(tmp_path / "profile") as browser:
            name = f"{'phone' if size is PHONE else 'desktop'}-{'dark' if is_dark else 'light'}"
            await browser.open(url, width=size[0], height=size[1], is_dark=is_dark)
            await browser.until("document.querySelectorAll('.slider').length === 8")
            await shoot(browser, f"{name}-empty")
            assert await browser.run(_SMALL_TARGETS) == []
            await browser.choose_file("#file", photo)
            await browser.until("document.querySelector('.bars .is-top') !== null")
            shares = await browser.run(
                "[...document.querySelectorAll('.bars .percent')].map((o) => o.textContent)"
            )
            assert len(shares) == 8
            assert all("%" in share for share in shares)
            await browser.run("document.querySelector('input[value=object]').click()")
            await browser.until("document.getElementById('overlay').naturalWidth > 0")
            assert await browser.run(_OVERLAY_IS_INSIDE)
            assert "much attention" in await browser.run("document.getElementById('legend').innerText")
            assert await browser.run(_LEGEND_COLOUR) == "rgb(0 200 220)"
            await browser.run("document.getElementById('subject').value = 'street'")
            await browser.run(_MIX)
            await browser.run(
                "document.getElementById('count').value = 2; document.getElementById('paint').click()"
            )
            await browser.until("document.querySelectorAll('#gallery li').length === 2")
            await browser.until("document.getElementById('status').textContent.startsWith('Done')")
            await shoot(browser, name)
            words = await browser.run("document.querySelector('#gallery li').innerText")
            assert "seed 8" in words
            assert "drawn" not in words
            assert "street" in words
            await browser.run("document.querySelector('#gallery .card-actions button:nth-child(2)').click()")
            assert await browser.run("document.getElementById('seed').value") == "8"
            await check_sound(browser, url)

    asyncio.run(visit())


_OVERLAY_IS_INSIDE = """(() => {
  const [a, b] = ['overlay', 'shown'].map((id) => document.getElementById(id).getBoundingClientRect());
  const isWide = a.left >= b.left - 1 && a.right <= b.right + 1;
  return a.width > 20 && isWide && a.top >= b.top - 1 && a.bottom <= b.bottom + 1;
})()"""
_LEGEND_COLOUR = "getComputedStyle(document.getElementById('legend')).getPropertyValue('--attention').trim()"
_SMALL_TARGETS = """[
    ...document.querySelectorAll('a.quiet, button, summary, .slider input, .segments span, select')]
  .map((e) => [e, e.getBoundingClientRect()])
  .filter(([e, box]) => box.width > 0 && box.height < 43.5)
  .map(([e, box]) => `${e.id || e.className || e.tagName} ${e.textContent} ${box.height}`)"""
_NOTHING_IS_SEEN = """document.querySelector('.bars .is-top') === null
  && document.getElementById('found').hidden
  && [...document.querySelectorAll('.bars .percent')].every((share) => share.textContent === '–')"""
_MIX = """for (const [name, value] of [['awe', 60], ['fear', 40]]) {
  const slider = document.querySelector(`.slider input[name=${name}]`);
  slider.value = value;
  slider.dispatchEvent(new Event('input', { bubbles: true }));
}"""


def test_the_shares_of_a_mixture_sum_to_100_percent(tmp_path):
    async def visit(url: str) -> None:
        async with chromium(tmp_path / "profile") as browser:
            await browser.open(url, width=PHONE[0], height=PHONE[1])
            await browser.until("document.querySelectorAll('.slider').length === 8")
            await browser.run(
                "document.querySelectorAll('.slider input').forEach((slider) => { slider.value = 100;"
                " slider.dispatchEvent(new Event('input', { bubbles: true })); })"
            )
            shares = await browser.run(
                "[...document.querySelectorAll('.slider .percent')].map((one) => parseInt(one.textContent))"
            )
            assert sum(shares) == 100
            assert set(shares) == {12, 13}
            await shoot(browser, "mixture")
            await check_sound(browser, url)

    with Served(ModelRegistry(models={"default": "tiny"}), tmp_path / "store") as url:
        asyncio.run(visit(url))


def test_keyboard_and_names(url, tmp_path):
    async def visit() -> None:
        async with chromium(tmp_path / "profile") as browser:
            await browser.open(url, width=DESKTOP[0], height=DESKTOP[1])
            await browser.until("document.querySelectorAll('.slider').length === 8")
            controls = [
                (role, name)
                for role, name in await browser.accessible()
                if role in ("button", "slider", "spinbutton", "textbox", "combobox", "radio", "link", "image")
            ]
            assert len(controls) > 20
            assert [control for control in controls if not control[1].strip()] == []
            assert ("slider", "Share of awe") in controls
            reached = []
            for _ in range(60):
                await browser.press("Tab", 9)
                reached.append(
                    await browser.run("document.activeElement.id || document.activeElement.name || ''")
                )
            for wanted in ("theme", "file", "awe", "subject", "seed", "dice", "paint"):
                assert wanted in reached, (wanted, reached)
            names = "[...document.querySelectorAll('.slider button:enabled')]"
            count = await browser.run(f"{names}.length")
            assert count > 2
            assert await browser.run(f"{names}.filter((name) => name.tabIndex === 0).length") == 1
            await browser.run(f"{names}[0].focus()")
            for key, code, at in (("ArrowDown", 40, 1), ("ArrowUp", 38, 0), ("ArrowUp", 38, count - 1)):
                await browser.press(key, code)
                assert await browser.run(f"{names}.indexOf(document.activeElement)") == at
                assert await browser.run(f"{names}.findIndex((name) => name.tabIndex === 0)") == at
            await browser.run("document.getElementById('seed').focus()")
            await browser.press("Enter", 13, "\r")  # a form is sent by its fields
            await browser.until("document.querySelectorAll('#gallery li').length === 1")
            await browser.run("document.getElementById('paint').focus()")
            await browser.press("Enter", 13, "\r")
            await browser.until("document.activeElement.id === 'cancel'")  # the focus is never lost
            await browser.until("document.querySelectorAll('#gallery li').length === 2")
            await browser.until("document.activeElement.id === 'paint'")
            await browser.run("document.getElementById('theme').click()")
            assert await browser.run("document.documentElement.dataset.theme") == "dark"
            await check_sound(browser, url)

    asyncio.run(visit())


def test_cancelling_and_a_bad_file(url, photo, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")

    async def visit() -> None:
        async with chromium(tmp_path / "profile") as browser:
            await browser.open(url, width=PHONE[0], height=PHONE[1])
            await browser.until("document.querySelectorAll('.slider').length === 8")
            await browser.choose_file("#file", photo)
            await browser.until("document.querySelector('.bars .is-top') !== null")
            await browser.choose_file("#file", bad)
            await browser.until(
                "document.getElementById('notice').textContent.includes('damaged or not an image')"
            )
            assert await browser.run(_NOTHING_IS_SEEN)  # the numbers of the picture before are gone with it
            await browser.run(
                "document.getElementById('steps').value = 100; document.getElementById('count').value = 8"
            )
            await browser.run("document.getElementById('paint').click()")
            await browser.until("document.getElementById('step').textContent.includes('step')")
            await browser.run("document.getElementById('cancel').click()")
            await browser.until("document.getElementById('status').textContent === 'Cancelled.'")
            assert await browser.run("document.getElementById('made').hidden")

    asyncio.run(visit())


_SEEDS = """[...document.querySelectorAll('#gallery li code')].map((code) => Number(code.textContent))"""


def test_a_reload_shows_what_was_generated_and_goes_on_with_what_runs(url, store, tmp_path):
    async def generate(browser: Browser, **fields: int) -> None:
        for name, value in fields.items():
            await browser.run(f"document.getElementById('{name}').value = {value}")
        await browser.run("document.getElementById('paint').click()")

    async def reload(browser: Browser) -> None:
        await browser.run("window.isOld = true")
        await browser.send("Page.reload")
        await browser.until("!window.isOld && document.querySelectorAll('.slider').length === 8")

    async def visit() -> None:
        async with chromium(tmp_path / "profile") as browser:
            await browser.open(url, width=DESKTOP[0], height=DESKTOP[1])
            await browser.until("document.querySelectorAll('.slider').length === 8")
            before = set(store.iterdir())
            await generate(browser, seed=20, count=2, steps=2)
            await browser.until("document.querySelectorAll('#gallery li').length === 2")
            [first] = set(store.iterdir()) - before
            await generate(browser, seed=40, count=1, steps=2)
            await browser.until("document.querySelectorAll('#gallery li').length === 3")
            await generate(browser, seed=60, count=4, steps=100)
            await browser.until("document.getElementById('step').textContent.includes('step')")

            await reload(browser)
            await browser.until("document.querySelectorAll('#gallery li').length >= 3")
            await browser.until("document.querySelectorAll('#gallery li').length === 7")
            assert await browser.run(_SEEDS) == [63, 62, 61, 60, 40, 21, 20]
            await browser.until("document.getElementById('status').textContent.startsWith('Done')")
            assert await browser.run("document.querySelectorAll('#easel img').length") == 4
            widths = "[...document.querySelectorAll('#gallery img')].map((image) => image.naturalWidth)"
            await browser.until(f"{widths}.every((width) => width > 0)")

            async with (
                aiohttp.ClientSession() as session,
                session.delete(f"{url}/v1/generations/{first.name}") as answer,
            ):
                assert answer.status == 200
            await reload(browser)
            await browser.until("document.querySelectorAll('#gallery li').length === 5")
            await browser.until(f"!sessionStorage.getItem('generations').includes('{first.name}')")
            assert await browser.run(_SEEDS) == [63, 62, 61, 60, 40]
            await shoot(browser, "reloaded")
            browser.errors[:] = [error for error in browser.errors if first.name not in error]  # its 404
            await check_sound(browser, url)

            await generate(browser, seed=80, count=1, steps=100)
            await browser.until("document.getElementById('step').textContent.includes('Step')")
            await browser.run("document.getElementById('cancel').click()")
            await browser.until("document.getElementById('status').textContent === 'Cancelled.'")
            await reload(browser)
            await browser.until("document.querySelectorAll('#gallery li').length === 5")
            assert await browser.run("document.getElementById('progress').hidden")

    asyncio.run(visit())


_SLOW_POST = """(() => {
  const send = window.fetch;
  window.fetch = async (url, options) => {
    if (options?.method === 'POST') await new Promise((done) => setTimeout(done, 1500));
    return send(url, options);
  };
})()"""


def test_cancelling_before_the_server_has_answered(url, store, tmp_path):
    before = set(store.iterdir())

    async def visit() -> None:
        async with chromium(tmp_path / "profile") as browser:
            await browser.open(url, width=DESKTOP[0], height=DESKTOP[1])
            await browser.until("document.querySelectorAll('.slider').length === 8")
            await browser.run(_SLOW_POST)
            await browser.run("document.getElementById('steps').value = 100")
            await browser.run("document.getElementById('paint').click()")
            await browser.run("document.getElementById('cancel').click()")
            await browser.until("document.getElementById('status').textContent === 'Cancelled.'", timeout_s=1)
            assert not await browser.run("document.getElementById('paint').disabled")
            async with asyncio.timeout(20):
                while not [p for p in set(store.iterdir()) - before if (p / "cancel").exists()]:
                    await asyncio.sleep(0.1)
            assert await browser.run("document.getElementById('made').hidden")
            assert browser.errors == []

    asyncio.run(visit())


def test_a_server_that_stops_leaves_the_page_what_is_finished(tmp_path):
    async def visit(server: subprocess.Popen[str], url: str) -> None:
        async with chromium(tmp_path / "profile") as browser:
            await browser.open(url, width=DESKTOP[0], height=DESKTOP[1])
            await browser.until("document.querySelectorAll('.slider').length === 8")
            await browser.run(
                "document.getElementById('steps').value = 60; document.getElementById('count').value = 8"
            )
            await browser.run("document.getElementById('paint').click()")
            await browser.until("document.querySelector('#easel img:not(.is-unfinished)') !== null")
            server.send_signal(signal.SIGINT)
            await browser.until("!document.getElementById('paint').disabled", timeout_s=10)
            shown = await browser.run("document.querySelectorAll('#gallery li').length")
            assert 1 <= shown < 8
            assert f"{shown} of 8 images are finished" in await browser.run(
                "document.getElementById('status').textContent"
            )
            assert await browser.run("document.querySelectorAll('#easel > *').length") == shown
            await shoot(browser, "stopped")
            assert browser.errors == []

    with command(tmp_path / "store") as (server, url):
        asyncio.run(visit(server, url))


def test_a_wrong_number_in_closed_settings_is_named(url, tmp_path):
    async def visit() -> None:
        async with chromium(tmp_path / "profile") as browser:
            await browser.open(url, width=DESKTOP[0], height=DESKTOP[1])
            await browser.until("document.querySelectorAll('.slider').length === 8")
            await browser.run("document.getElementById('steps').value = 5000")
            await browser.run("document.getElementById('paint').click()")
            assert await browser.run("document.querySelector('#make details').open")
            assert await browser.run("document.activeElement.id") == "steps"
            problem = await browser.run("document.getElementById('form-problem').innerText")
            assert problem.startswith("Steps: ")
            assert "100" in problem
            await shoot(browser, "wrong-number")
            await browser.run(
                "document.getElementById('steps').value = 2;"
                "document.getElementById('steps').dispatchEvent(new Event('input', {bubbles: true}))"
            )
            assert await browser.run("document.getElementById('form-problem').hidden")
            await browser.run("document.getElementById('paint').click()")
            await browser.until("document.querySelectorAll('#gallery li').length === 1")
            await check_sound(browser, url)

    asyncio.run(visit())


def test_files_that_the_server_cannot_take_are_not_sent(url, tmp_path):
    heic, large = tmp_path / "IMG_1.HEIC", tmp_path / "large.png"
    heic.write_bytes(b"heic")
    large.write_bytes(bytes(20_000_001))

    async def visit() -> None:
        async with chromium(tmp_path / "profile") as browser:
            await browser.open(url, width=DESKTOP[0], height=DESKTOP[1])
            await browser.until("document.querySelectorAll('.slider').length === 8")
            for path, words in ((heic, "HEIC"), (large, "at most 20 MB")):
                await browser.choose_file("#file", path)
                await browser.until(f"document.getElementById('notice').textContent.includes('{words}')")
                assert await browser.run(_NOTHING_IS_SEEN)
            assert not [request for request in browser.requests if "/v1/understand" in request]

    asyncio.run(visit())


def test_the_page_says_what_its_model_knows(photo, tmp_path):
    async def visit(url: str) -> None:
        async with chromium(tmp_path / "profile") as browser:
            await browser.open(url, width=PHONE[0], height=PHONE[1])
            await browser.choose_file("#file", photo)
            await browser.until("document.querySelector('.bars .is-top') !== null")
            words = await browser.run("document.getElementById('knows').innerText")
            assert "This model was trained on drawings (EmoSketch)." in words
            assert "It knows 16 scenes and 24 objects" in words
            await browser.run("document.getElementById('paint').click()")
            await browser.until("document.querySelectorAll('#gallery li').length === 1")
            assert "asked for: " in await browser.run("document.querySelector('#gallery li').innerText")
            await shoot(browser, "knows")
            await check_sound(browser, url)

    with Served(ModelRegistry(models={"default": "tiny"}), tmp_path / "store") as url:
        asyncio.run(visit(url))


def test_a_token_is_asked_for_and_used(registry, tmp_path):
    token = add_token(tmp_path / "tokens.json", "ann")

    async def visit(url: str) -> None:
        async with chromium(tmp_path / "profile") as browser:
            await browser.open(url, width=DESKTOP[0], height=DESKTOP[1])
            for given, words in (
                (f"{token[:9]}–{token[10:]}", "No token contains the character “–”"),
                ("uniemo wrong", "A token is one word"),
                ("uniemo_wrong", "The server does not accept this token."),
            ):
                await browser.until("document.getElementById('token-dialog').open")
                await browser.run(f"document.getElementById('token').value = {json.dumps(given)}")
                await browser.run("document.querySelector('#token-dialog button').click()")
                problem = "document.getElementById('token-problem')"
                await browser.until(f"!{problem}.hidden && {problem}.innerText.includes({json.dumps(words)})")
                assert await browser.run("sessionStorage.getItem('token')") is None
            await shoot(browser, "token")
            await browser.run(f"document.getElementById('token').value = {json.dumps(token)}")
            await browser.run("document.querySelector('#token-dialog button').click()")
            await browser.until("document.querySelectorAll('.slider').length === 8")
            assert await browser.run("sessionStorage.getItem('token')") == token

    with Served(registry, tmp_path / "store", tokens=TokenFile(tmp_path / "tokens.json")) as url:
        asyncio.run(visit(url))


def test_a_model_that_only_understands(registry, parts, photo, tmp_path, monkeypatch):
    monkeypatch.setattr(ModelRegistry, "load", lambda *_: UniEmo(replace(parts, diffusion=None)))

    async def visit(url: str) -> None:
        async with chromium(tmp_path / "profile") as browser:
            await browser.open(url, width=DESKTOP[0], height=DESKTOP[1])
            await browser.choose_file("#file", photo)
            await browser.until("document.querySelector('.bars .is-top') !== null")
            assert await browser.run(
                "['make', 'can-paint'].every((id) => document.getElementById(id).hidden)"
            )
            await shoot(browser, "only-understands")
            await check_sound(browser, url)

    with Served(registry, tmp_path / "store") as url:
        asyncio.run(visit(url))


def test_the_documentation_is_there_without_a_network(url, tmp_path):
    async def visit() -> None:
        async with chromium(tmp_path / "profile") as browser:
            await browser.open(f"{url}/docs", width=DESKTOP[0], height=DESKTOP[1])
            await browser.until("document.querySelectorAll('.operation').length === 12")
            await shoot(browser, "docs")
            await check_sound(browser, url)

    asyncio.run(visit())
