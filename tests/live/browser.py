"""A headless Chromium, driven through chromedriver's protocol (W3C WebDriver)."""

from __future__ import annotations

import base64
import http.client
import json
import re
import subprocess
from pathlib import Path
from typing import Any

from fserr_bpf.closing import Closing
from tests.live.conftest import wait_until

_TIMEOUT = 60.0  # seconds for one command
_ARGUMENTS = (
    *("headless", "no-sandbox", "disable-gpu", "no-first-run", "hide-scrollbars"),
    *("disable-background-networking", "disable-component-update", "disable-sync"),
)


class Browser(Closing):
    """One window, with a fresh profile in ``folder``; its console is kept.

    OSError if there is no chromedriver, RuntimeError for what the browser refuses.
    """

    def __init__(self, folder: Path) -> None:
        self._driver = subprocess.Popen(
            ["chromedriver", "--port=0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            self._http = http.client.HTTPConnection("127.0.0.1", self._port(), timeout=_TIMEOUT)
            self._session = ""
            options = {"args": [*_ARGUMENTS, f"user-data-dir={folder}"]}
            wanted = {
                "browserName": "chrome",
                "goog:chromeOptions": options,
                "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
            }
            opened = self._ask("POST", "", {"capabilities": {"alwaysMatch": wanted}})
            self._session = f"/{opened['sessionId']}"
        except BaseException:
            self._driver.kill()
            self._driver.communicate()
            raise

    def close(self) -> None:
        """End the browser, then its driver."""
        try:
            self._ask("DELETE", "")
        finally:
            self._http.close()
            self._driver.terminate()
            self._driver.communicate()

    def open(self, url: str) -> None:
        """Load ``url`` and wait until that is done."""
        self._ask("POST", "/url", {"url": url})
        wait_until(lambda: self.run("return document.readyState") == "complete", "the page")

    def run(self, script: str, *arguments: object) -> Any:
        """What a function with this body returns in the page."""
        return self._ask("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def devtools(self, command: str, **parameters: object) -> Any:
        """A command of the DevTools protocol."""
        return self._ask("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def show(self, width: int, height: int, scheme: str) -> None:
        """A screen of this size in CSS pixels, for a user who wants ``light`` or ``dark``."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < height,
        )
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.devtools("Emulation.setEmulatedMedia", features=[feature])

    def click(self, selector: str) -> None:
        """Click on the first element that fits."""
        found = self._ask("POST", "/element", {"using": "css selector", "value": selector})
        self._ask("POST", f"/element/{next(iter(found.values()))}/click", {})

    def screenshot(self) -> bytes:
        """What the window shows, as PNG."""
        return base64.b64decode(self._ask("GET", "/screenshot"))

    def console(self) -> list[str]:
        """Messages of the console since the last call."""
        entries = self._ask("POST", "/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries]

    def requests(self) -> list[str]:
        """Addresses that were asked for since the last call, whether or not they answered."""
        entries = self._ask("POST", "/se/log", {"type": "performance"})
        messages = [json.loads(entry["message"])["message"] for entry in entries]
        return [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]

    def _port(self) -> int:
        assert self._driver.stdout is not None
        for line in self._driver.stdout:
            if found := re.search(r"started successfully on port (\d+)", line):
                return int(found[1])
        raise RuntimeError("chromedriver did not start")

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        text = None if body is None else json.dumps(body)
        self._http.request(method, f"/session{self._session}{path}", text)
        value = json.loads(self._http.getresponse().read())["value"]
        if isinstance(value, dict) and "error" in value:
            raise RuntimeError(f"{path or 'session'}: {value['error']}: {value['message']}")
        return value
