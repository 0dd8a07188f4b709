"""A real JupyterLab with a real browser, and a line to the kernel behind the page.

with chromium() as browser, Lab(folder, browser) as lab, lab.open("name", [cell, cell]) as book:
    book.run()
    book.stroke(canvas, [(10, 10), (200, 80)])
    assert book.kernel("len(canvas.strokes)") == 1
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat

WIDTH, HEIGHT = 1200, 1000


@contextlib.contextmanager
def chromium():
    """One headless browser."""
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        yield browser
        browser.close()


class Lab:
    """`jupyter lab` on loopback, with settings of its own, or another app, such as "notebook"."""

    def __init__(self, folder, browser, height: int = HEIGHT, app: str = "lab"):
        self.folder, self.browser, self.height, self.app = Path(folder), browser, height, app

    def __enter__(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.token = secrets.token_hex(8)
        self.url = f"http://127.0.0.1:{port}"
        self.runtime = self.folder / "runtime"
        self.root = self.folder / "root"
        self.root.mkdir(parents=True)
        quiet = self.folder / "settings/@jupyterlab/apputils-extension"
        quiet.mkdir(parents=True)
        (quiet / "notification.jupyterlab-settings").write_text(
            '{"fetchNews": "false", "checkForUpdates": false, "doNotDisturbMode": true}'
        )
        (quiet / "themes.jupyterlab-settings").write_text('{"adaptive-theme": true}')
        home = {
            "JUPYTER_CONFIG_DIR": "config",
            "JUPYTER_RUNTIME_DIR": "runtime",
            "JUPYTERLAB_SETTINGS_DIR": "settings",
            "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
            "IPYTHONDIR": "ipython",
        }
        env = os.environ | {name: str(self.folder / path) for name, path in home.items()}
        here = str(Path(__file__).parents[2])
        env["PYTHONPATH"] = os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])
        options = [
            f"--ServerApp.port={port}",
            f"--IdentityProvider.token={self.token}",
            "--ServerApp.port_retries=0",
            f"--ServerApp.root_dir={self.root}",
        ]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            options.append("--allow-root")
        with (self.folder / "server.log").open("w") as log:
            self.server = subprocess.Popen(
                [sys.executable, "-m", "jupyter", self.app, "--no-browser", *options],
                cwd=self.root,
                env=env,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.server.wait(15)
        self.server.kill()

    def _wait(self):
        for _ in range(300):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{self.url}/api?token={self.token}", timeout=5).close()
                return
            if self.server.poll() is not None:
                break
            time.sleep(0.2)
        raise RuntimeError((self.folder / "server.log").read_text()[-2000:])

    def open(self, name: str, cells, width=WIDTH, sidebar=False, **options) -> Book:
        """A notebook of these cells, or the one at a path, in a page of its own.

        sidebar: in the whole of JupyterLab. options: of the page, such as color_scheme.
        """
        if isinstance(cells, Path):
            book = nbformat.read(cells, as_version=4)
        else:
            book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
            book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
        nbformat.write(book, self.root / f"{name}.ipynb")
        options = {"viewport": {"width": width, "height": self.height}} | options
        shell = "notebooks" if self.app == "notebook" else "lab/tree" if sidebar else "doc/tree"
        return Book(self, name, len(book.cells), shell, options)


class Book:
    """One notebook in one page, and a client of its kernel."""

    def __init__(self, lab: Lab, name: str, cells: int, shell: str, options: dict):
        self.lab, self.name, self.cells, self.options = lab, name, cells, options
        self.shell, self.client = shell, None

    def __enter__(self):
        self.page = self.lab.browser.new_page(**self.options)
        at = f"{self.lab.url}/{self.shell}/{self.name}.ipynb"
        self.page.goto(f"{at}?reset&token={self.lab.token}")
        self.ready()
        return self

    def __exit__(self, kind, *_):
        if kind is not None:  # what the page looked like: beside the server's log
            self.page.screenshot(path=self.lab.folder / f"{self.name}-failed.png")
        if self.client is not None:
            self.client.stop_channels()
        self.page.close()
        for kernel in self._rest("kernels"):
            self._rest(f"kernels/{kernel['id']}", method="DELETE")

    def ready(self):
        self.page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
        self.page.wait_for_selector(
            ".jp-Notebook-ExecutionIndicator[data-status=idle]", timeout=60_000, state="attached"
        )
        if self.lab.app == "lab":  # its status bar knows better
            idle = "document.body.innerText.includes('| Idle')"
            self.page.wait_for_function(idle, timeout=60_000)

    def run(self):
        """Shift+Enter in each cell, again where the kernel was not yet there to hear it."""
        prompt = self.page.locator(".jp-Notebook .jp-Cell .jp-InputPrompt").first
        while prompt.inner_text() == "[ ]:":
            self.page.click(".jp-Notebook .jp-Cell >> nth=0")
            self.page.keyboard.press("Escape")
            for _ in range(self.cells):
                self.page.keyboard.press("Shift+Enter")
            self.page.wait_for_timeout(1000)
        self.wait("True")

    def save(self):
        self.page.click(".jp-Notebook .jp-Cell .jp-InputPrompt >> nth=0")
        self.page.keyboard.press("Escape")
        self.page.keyboard.press("Control+s")
        path, count = self.lab.root / f"{self.name}.ipynb", 0
        while '"output_type"' not in path.read_text() and count < 100:
            self.page.wait_for_timeout(100)
            count += 1

    def reload(self):
        self.page.reload()
        self.ready()

    def kernel(self, expression: str):
        """What an expression is in the kernel, by way of JSON."""
        if self.client is None:
            from jupyter_client import BlockingKernelClient

            (kernel,) = self._rest("kernels")
            file = self.lab.runtime / f"kernel-{kernel['id']}.json"
            self.client = BlockingKernelClient(connection_file=str(file))
            self.client.load_connection_file()
            self.client.start_channels()
        ask = {"value": f"__import__('json').dumps({expression}, default=str)"}
        sent = self.client.execute("", silent=True, user_expressions=ask)
        while True:
            reply = self.client.get_shell_msg(timeout=120)
            if reply["parent_header"].get("msg_id") == sent:
                break
        value = reply["content"]["user_expressions"]["value"]
        if value["status"] != "ok":
            raise RuntimeError(f"{expression}: {value['ename']}: {value['evalue']}")
        text = value["data"]["text/plain"]
        return json.loads(__import__("ast").literal_eval(text))

    def wait(self, expression: str, seconds: float = 60):
        """Until the expression is true in the kernel."""
        end = time.monotonic() + seconds
        while not (value := self.kernel(expression)):
            if time.monotonic() > end:
                raise TimeoutError(f"not true after {seconds} s: {expression} is {value!r}")
            self.page.wait_for_timeout(150)

    def canvas(self, nth: int = 0):
        """The box of a canvas on the page, in view."""
        found = self.page.locator(".jp-OutputArea canvas:visible").nth(nth)
        found.scroll_into_view_if_needed()
        return found.bounding_box()

    def stroke(self, points, nth: int = 0):
        """Press at the first point, through the others, release at the last; canvas pixels."""
        box, mouse = self.canvas(nth), self.page.mouse
        at = [(box["x"] + x, box["y"] + y) for x, y in points]
        mouse.move(*at[0])
        mouse.down()
        for point in at[1:]:
            mouse.move(*point, steps=8)
        mouse.up()

    def press(self, text: str, nth: int = 0):
        """A button by what it says."""
        self.page.locator(f".jp-OutputArea button:visible:has-text('{text}')").nth(nth).click()

    def _rest(self, path: str, method: str = "GET"):
        request = urllib.request.Request(
            f"{self.lab.url}/api/{path}",
            method=method,
            headers={"Authorization": f"token {self.lab.token}"},
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read() or b"null")
