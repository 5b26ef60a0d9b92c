"""The dashboard in a real browser, driven over its DevTools protocol: typed into, read, logged in to, photographed."""

import base64
import json
import struct
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

import pytest
from websockets.sync.client import connect

import tightrope
from tightrope.device.index.documents import Document
from tightrope.device.index.making import create
from tightrope.device.serve.server import Server

pytestmark = [pytest.mark.browser, pytest.mark.engine, pytest.mark.slow]
SHIFTS = (
    "window.shifts = 0; new PerformanceObserver((list) => { for (const entry of list.getEntries()) "
    "if (!entry.hadRecentInput) window.shifts += entry.value; }).observe({type: 'layout-shift', buffered: true});"
)
OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars", "--disable-sync"),
    *("--remote-debugging-port=0", "--disable-background-networking", "--disable-component-update"),
)


class Browser:
    """One tab of a headless Chromium. A context manager."""

    def __init__(self, program: str, profile: Path) -> None:
        self._command = [program, *OPTIONS, f"--user-data-dir={profile}", "about:blank"]
        self._port = profile / "DevToolsActivePort"
        self._number = 0
        self.complaints: list[str] = []
        self.asked: list[str] = []
        """What the page wanted from anywhere."""

    def __enter__(self) -> Self:
        with ExitStack() as held:
            process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            held.callback(process.wait, 20)
            held.callback(process.terminate)
            self._tab = held.enter_context(connect(self._address(), max_size=None))
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.call(f"{domain}.enable")
            self.call("Page.addScriptToEvaluateOnNewDocument", source=SHIFTS)
            self._held = held.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def call(self, method: str, **given: Any) -> dict[str, Any]:
        """Ask the browser; what the page complains of meanwhile is kept."""
        self._number += 1
        self._tab.send(json.dumps({"id": self._number, "method": method, "params": given}))
        while True:
            message = json.loads(self._tab.recv(timeout=30))
            if message.get("id") == self._number:
                assert "error" not in message, message
                return dict(message["result"])
            self._note(message)

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def show(self, url: str, width: int, height: int, scheme: str) -> None:
        """Go there with a screen of this size, which is light or dark."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Page.navigate", url=url)

    def until(self, condition: str) -> None:
        """Wait for the page to say so."""
        end = time.monotonic() + 15
        while not self.run(f"Boolean({condition})"):
            assert time.monotonic() < end, self.run("document.body.innerText")
            time.sleep(0.02)

    def press(self, key: str) -> None:
        """Press a key as a person does."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, text="\r" if key == "Enter" else "")

    def type(self, text: str) -> None:
        """Type into what has the focus, letter by letter."""
        for letter in text:
            self.call("Input.insertText", text=letter)

    def photograph(self) -> bytes:
        """What is to be seen, as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def _note(self, message: dict[str, Any]) -> None:
        if message.get("method") in ("Network.requestWillBeSent", "Network.webSocketCreated"):
            self.asked.append(message["params"].get("request", message["params"])["url"])
        entry = message.get("params", {}).get("entry", {})
        if message.get("method") == "Runtime.exceptionThrown" or entry.get("level") in ("error", "warning"):
            self.complaints.append(json.dumps(message["params"])[:500])

    def _address(self) -> str:
        """Where the tab listens: the browser writes its port down."""
        end = time.monotonic() + 20
        lines: list[str] = []
        while len(lines) < 2 and time.monotonic() < end:
            time.sleep(0.02)
            with suppress(FileNotFoundError):
                lines = self._port.read_text().splitlines()
        with urllib.request.urlopen(f"http://127.0.0.1:{lines[0]}/json", timeout=10) as answer:
            return str(next(tab["webSocketDebuggerUrl"] for tab in json.load(answer) if tab["type"] == "page"))


LONG = "all-MiniLM-L6-v2-multilingual-customer-support-and-returns"


@pytest.fixture(scope="module")
def long_named(native_bundle: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for a model with a name that is longer than its place, and two indexes."""
    folder = tmp_path_factory.mktemp("long")
    bundle = native_bundle(folder / "models" / LONG / "2026-11-25-rotated-int8.bundle")
    indexes = {name: folder / f"{name}.index" for name in ("manuals", "questions")}
    with tightrope.open(bundle.path) as model:
        for name, path in indexes.items():
            with create(path, digest=bundle.digest, width=32) as index:
                index.add([Document(key=name, passages=(f"{name} bark",))], model.embed([f"{name} bark"]))
    with tightrope.serve(folder / "models", threads=1, indexes=indexes) as server:
        server.app.state.catalogue.answer(None, ["open it"]).result(20)
        yield server


@pytest.fixture(scope="module")
def browser(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all tests here."""
    with Browser(chromium, tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.mark.parametrize(
    ("width", "height", "scheme"), [(1280, 900, "light"), (768, 1024, "dark"), (390, 844, "light")]
)
def test_a_person_searches_and_takes_a_picture(
    searched: Server, browser: Browser, width: int, height: int, scheme: str
) -> None:
    browser.complaints.clear()
    browser.asked.clear()
    browser.show(searched.url, width, height, scheme)
    browser.until("document.getElementById('stream')?.textContent === 'live'")
    browser.run("document.getElementById('query').focus()")
    browser.type("dogs bark")
    browser.until("document.querySelector('#hits .words')?.textContent === 'dogs bark'")
    assert browser.run("document.querySelectorAll('#hits mark').length") >= 2
    page = "document.documentElement"
    assert browser.run(f"{page}.scrollWidth <= {page}.clientWidth")
    assert browser.run("window.shifts") < 0.02
    paper = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, paper[4:-1].split(","))) > 600) == (scheme == "light")
    picture = browser.photograph()
    assert struct.unpack(">II", picture[16:24]) == (width, height)
    assert len(picture) > 20_000
    assert browser.complaints == []
    own = (f"{searched.url}/", f"{searched.url.replace('http', 'ws')}/", "data:")
    assert browser.asked and [url for url in browser.asked if not url.startswith(own)] == []


@pytest.mark.parametrize("width", [1280, 768, 390])
def test_a_long_name_does_not_break_the_page(long_named: Server, browser: Browser, width: int) -> None:
    browser.show(long_named.url, width, 900, "light")
    browser.until("document.querySelectorAll('#owners tr').length > 1")
    rows = browser.run(
        "[...document.querySelectorAll('#owners tr')].map((row) => ({ title: row.cells[0].title, "
        "height: row.offsetHeight, edge: row.cells[2].getBoundingClientRect().right }))"
    )
    assert f"model:{LONG}@2026-11-25-rotated-int8" in [row["title"] for row in rows]
    assert max(row["height"] for row in rows) < 60  # two lines: a name, and what it is
    assert len({round(row["edge"]) for row in rows}) == 1
    page = "document.documentElement"
    assert browser.run(f"{page}.scrollWidth <= {page}.clientWidth")


def test_indexes_are_shown_with_their_sizes(searched: Server, browser: Browser) -> None:
    browser.show(searched.url, 1280, 900, "light")
    browser.until("document.getElementById('stream')?.textContent === 'live'")
    [cells] = browser.run(
        "[...document.querySelectorAll('#indexes tbody tr')]"
        ".map((row) => [...row.cells].map((cell) => cell.textContent))"
    )
    assert (
        cells[:3] == ["docs", "current", "5 passages"]
        and cells[3].endswith(" MB")
        and cells[4].startswith("faq, version")
    )
    assert browser.run("document.getElementById('pick-index').hidden")  # there is one only


def test_one_of_several_indexes_is_searched(long_named: Server, browser: Browser) -> None:
    browser.show(long_named.url, 390, 844, "dark")
    browser.until("document.getElementById('index')?.length === 2")
    assert not browser.run("document.getElementById('pick-index').hidden")
    browser.run("document.getElementById('query').focus()")
    browser.type("bark")
    browser.until("document.querySelector('#hits .words')?.textContent === 'manuals bark'")
    browser.run(
        "Object.assign(document.getElementById('index'), { value: 'questions' }).dispatchEvent(new Event('change'))"
    )
    browser.until("document.querySelector('#hits .words')?.textContent === 'questions bark'")
    browser.run("document.getElementById('tab-embed').click()")
    assert browser.run("document.getElementById('pick-index').hidden")


def test_the_box_is_used_with_the_keyboard_alone(searched: Server, browser: Browser) -> None:
    browser.show(searched.url, 1280, 900, "light")
    browser.until("document.getElementById('stream')?.textContent === 'live'")
    browser.run("document.getElementById('tab-search').focus()")
    browser.press("ArrowRight")
    browser.until("document.querySelectorAll('#similarities li').length === 3")
    assert browser.run("document.activeElement.id") == "tab-similarity"
    assert browser.run("document.getElementById('panel-search').hidden")
    browser.press("ArrowRight")
    browser.until("document.getElementById('embed-note').textContent.includes('32 numbers')")
    assert len(browser.run("document.getElementById('numbers').textContent").split()) == 32
    assert browser.run("document.getElementById('vector').width") == 32


def test_what_the_server_does_is_seen(searched: Server, browser: Browser) -> None:
    browser.show(searched.url, 1280, 900, "dark")
    browser.until("document.getElementById('ready')?.textContent === 'ready'")
    body = json.dumps({"input": ["the cat", "a mat", "dogs"]}).encode()
    for _ in range(20):
        request = urllib.request.Request(
            searched.url + "/v1/embeddings", body, {"Content-Type": "application/json"}, method="POST"
        )
        urllib.request.urlopen(request, timeout=10).close()
    browser.until("document.querySelector('#apis th[scope=row]')?.textContent === 'openai'")
    browser.until("/ms|µs/.test(document.getElementById('p50').textContent)")
    browser.until("document.querySelector('#latency-chart .line').getAttribute('d').length > 3")
    assert browser.run("document.querySelector('#models .badge').textContent") == "current"
    owners = browser.run("[...document.querySelectorAll('#owners th')].map((one) => one.textContent)")
    assert "process" in owners and any(name.startswith("faqversion ") for name in owners)


def test_words_from_outside_stay_words(searched: Server, browser: Browser) -> None:
    browser.show(searched.url, 390, 844, "light")
    browser.until("document.getElementById('stream')?.textContent === 'live'")
    attack = "<img src=x onerror=window.attacked=1>" + "x" * 300
    added = json.dumps({"documents": [{"key": "attack", "title": attack, "text": attack}]}).encode()
    json_type = {"Content-Type": "application/json"}
    urllib.request.urlopen(urllib.request.Request(searched.url + "/v1/documents", added, json_type), timeout=10).close()
    try:
        browser.run("document.getElementById('query').focus()")
        browser.type("onerror window")
        browser.until("document.getElementById('hits').textContent.includes('<img src=x')")
        assert browser.run("window.attacked ?? null") is None
        assert browser.run("document.querySelector('#hits img')") is None
        assert browser.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    finally:
        gone = urllib.request.Request(searched.url + "/v1/documents/attack", method="DELETE")
        urllib.request.urlopen(gone, timeout=10).close()


def test_with_keys_one_logs_in_and_out(locked: tuple[Server, str], browser: Browser) -> None:
    server, secret = locked
    browser.show(server.url, 1280, 900, "light")
    browser.until("document.getElementById('key')")
    assert browser.run("document.getElementById('state')") is None
    browser.run("document.getElementById('key').focus()")
    browser.type("wrong")
    browser.press("Enter")
    browser.until("document.querySelector('[role=alert]')?.textContent.includes('not known')")
    browser.run("document.getElementById('key').focus()")
    browser.type(secret)
    browser.press("Enter")
    browser.until("document.getElementById('stream')?.textContent === 'live'")
    assert browser.run("document.cookie") == ""  # out of reach of scripts
    browser.until("document.getElementById('tab-search').hidden")
    browser.until("document.querySelectorAll('#similarities li').length === 3")
    browser.run("document.querySelector('#log-out button').click()")
    browser.until("document.getElementById('key')")
