"""A page in Chromium, watched."""

from pathlib import Path
from typing import Any

import numpy as np

SCROLL = """async () => {
    for (let y = 0; y < document.documentElement.scrollHeight; y += innerHeight / 2) {
        scrollTo(0, y);
        await new Promise(requestAnimationFrame);
    }
}"""


class Visit:
    """A window that remembers what went wrong and what it fetched."""

    def __init__(self, browser: Any, folder: Path, **options: Any) -> None:
        self.folder, self.window = folder, browser.new_context(**options)
        self.requests: list[str] = []
        self.wrong: list[str] = []
        self.page = self.window.new_page()
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.wrong.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.wrong.append("a dialog"), dialog.dismiss()))

    def open(self, name: str) -> Any:
        self.page.goto((self.folder / name).as_uri(), wait_until="load")
        return self.page

    def press(self, key: str, ending: str) -> None:
        self.page.keyboard.press(key)
        self.page.wait_for_url(lambda url: url.endswith(ending), timeout=90_000)

    def shown(self) -> list[int]:
        return [int(each) for each in self.page.locator(".grid figure:visible figcaption b").all_inner_texts()]

    def see_everything(self) -> None:
        """Scroll to the end, so that all lazy images are fetched."""
        self.page.evaluate(SCROLL)
        self.page.wait_for_function("[...document.images].every(image => image.complete && image.naturalWidth)")

    def check(self) -> None:
        self.window.close()
        assert self.wrong == []
        assert self.requests
        assert all(url.startswith(self.folder.as_uri() + "/") or url == "data:," for url in self.requests)


def contrast(page: Any, selector: str) -> float:
    """Of the first such element on the page's ground, as WCAG 2 defines it."""
    script = "s => [document.querySelector(s), document.body].map((e, i) => getComputedStyle(e)"
    colours = page.evaluate(
        script + "[i ? 'backgroundColor' : 'color'].match(/[0-9]+/g).slice(0, 3).map(Number))", selector
    )
    parts = np.array(colours) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    low, high = sorted(linear @ [0.2126, 0.7152, 0.0722])
    return float((high + 0.05) / (low + 0.05))
