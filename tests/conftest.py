"""Shapes checked under beartype while testing, and a browser for the tests that need one."""

import os
import shutil
import signal
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# What numba compiles must reach it unwrapped.
COMPILED = ("superpose.kernels.", "superpose.theory.relu.")


def _modules() -> set[str]:
    root = Path(find_spec("superpose").origin).parent
    files = (file.relative_to(root.parent).with_suffix("") for file in root.rglob("*.py"))
    return {".".join(file.parts) for file in files if file.name != "__init__"}


# A shell lets its background jobs ignore interrupts, which tests send to themselves.
signal.signal(signal.SIGINT, signal.default_int_handler)

checked = [module for module in sorted(_modules()) if not module.startswith(COMPILED)]
install_import_hook(checked, "typechecking.typecheck")


@dataclass
class Visit:
    """A page opened offline, with whatever it complained of or reached for."""

    page: object
    requests: list = field(default_factory=list)
    complaints: list = field(default_factory=list)

    def value(self, script):
        return self.page.evaluate(script)


@pytest.fixture(scope="session")
def chromium():
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None or find_spec("playwright") is None:
        missing = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        missing("browser tests need playwright and chromium or google-chrome on the path")
    from playwright import sync_api

    arguments = (
        "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
        "--disable-background-networking --disable-component-update"
    )
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=arguments.split())
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, tmp_path):
    """Open HTML text as an offline file: `visit(html, width=..., scheme=...)`."""
    contexts = []

    def open_page(html, width=1440, scheme="light"):
        path = tmp_path / "report.html"
        path.write_text(html, encoding="utf-8")
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme
        )
        contexts.append(context)
        context.set_offline(True)
        seen = Visit(context.new_page())
        seen.page.on("request", lambda request: seen.requests.append(request.url))
        seen.page.on("console", lambda message: seen.complaints.append(message.text))
        seen.page.on("pageerror", lambda error: seen.complaints.append(str(error)))
        seen.page.on("dialog", lambda dialog: seen.complaints.append(dialog.message))
        seen.page.goto(path.as_uri())
        return seen

    yield open_page
    for context in contexts:
        context.close()
