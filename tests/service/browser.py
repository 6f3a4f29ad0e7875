"""A headless Chromium, driven through its own DevTools protocol."""

import asyncio
import base64
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
LARGEST_MESSAGE = 64 << 20
_MOVED = "{x: x + scrollX, y: y + scrollY, width, height}"


class Browser:
    """One page."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self.socket:
            data = json.loads(message.data)
            if "id" in data:
                self.waiting.pop(data["id"]).set_result(data)
            elif data["method"] == "Network.requestWillBeSent":
                self.requests.append(data["params"]["request"]["url"])
            elif data["method"] == "Runtime.exceptionThrown":
                self.errors.append(json.dumps(data["params"]["exceptionDetails"])[:600])
            elif data["method"] == "Log.entryAdded" and data["params"]["entry"]["level"] == "error":
                self.errors.append(json.dumps(data["params"]["entry"])[:600])

    async def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = max(self.waiting, default=0) + 1
        self.waiting[number] = future = asyncio.get_running_loop().create_future()
        await self.socket.send_json({"id": number, "method": method, "params": parameters})
        answer = await asyncio.wait_for(future, 60)
        assert "error" not in answer, (method, answer)
        return answer["result"]

    async def open(self, url: str, *, width: int, height: int, is_dark: bool = False) -> None:
        for domain in ("Page", "Network", "Runtime", "Log", "DOM", "Accessibility"):
            await self.send(f"{domain}.enable")
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        calm = {"name": "prefers-reduced-motion", "value": "reduce"}
        await self.send("Emulation.setEmulatedMedia", features=[scheme, calm])
        await self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if width < 600 else 1,
            mobile=width < 600,
        )
        await self.send("Page.navigate", url=url)
        await self.until("document.readyState === 'complete'")

    async def run(self, script: str) -> Any:
        answer = await self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def until(self, script: str, *, timeout_s: float = 120) -> None:
        async with asyncio.timeout(timeout_s):
            while not await self.run(script):
                await asyncio.sleep(0.1)

    async def choose_file(self, selector: str, path: Path) -> None:
        root = (await self.send("DOM.getDocument"))["root"]["nodeId"]
        node = (await self.send("DOM.querySelector", nodeId=root, selector=selector))["nodeId"]
        await self.send("DOM.setFileInputFiles", files=[str(path)], nodeId=node)

    async def press(self, key: str, code: int, text: str = "") -> None:
        options = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        await self.send("Input.dispatchKeyEvent", type="keyDown", text=text, **options)
        await self.send("Input.dispatchKeyEvent", type="keyUp", **options)

    async def accessible(self) -> list[tuple[str, str]]:
        """Role and name of everything that assistive technology is told about."""
        nodes = (await self.send("Accessibility.getFullAXTree"))["nodes"]
        return [
            (node["role"]["value"], node.get("name", {}).get("value", ""))
            for node in nodes
            if not node["ignored"]
        ]

    async def screenshot(self, path: Path, *, selector: str | None = None) -> None:
        size = (await self.send("Page.getLayoutMetrics"))["cssContentSize"]
        box = {"x": 0, "y": 0, "width": size["width"], "height": size["height"]}
        if selector:
            frame = f"document.querySelector({json.dumps(selector)}).getBoundingClientRect()"
            box = await self.run(f"(({{x, y, width, height}}) => ({_MOVED}))({frame})")
        shot = await self.send("Page.captureScreenshot", clip=box | {"scale": 1}, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))


@asynccontextmanager
async def chromium(profile: Path) -> AsyncIterator[Browser]:
    """A fresh browser with one empty page."""
    command = [
        str(CHROMIUM),
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--remote-debugging-port=0",
        f"--user-data-dir={profile}",
        "about:blank",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port = await _port(profile / "DevToolsActivePort")
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                page = next(target for target in await answer.json() if target["type"] == "page")
            async with session.ws_connect(
                page["webSocketDebuggerUrl"], max_msg_size=LARGEST_MESSAGE
            ) as socket:
                browser = Browser(socket)
                yield browser
                browser.reader.cancel()
    finally:
        process.terminate()
        process.wait(timeout=30)


async def _port(file: Path) -> int:
    async with asyncio.timeout(120):
        while not (file.exists() and file.read_text().strip()):
            await asyncio.sleep(0.2)
    return int(file.read_text().split()[0])
