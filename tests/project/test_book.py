"""The static site: whole, described, and in need of nothing from outside; in a browser as well where there is one."""

import os
import re
import sys
import threading
import urllib.parse
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from browser import ARGUMENTS, CHROMIUM, HOW

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
pytest.importorskip("jupyter_book", reason="jupyter-book is not installed: pip install -e '.[book]'")
import build_book  # noqa: E402

CHAPTERS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))


class _Page(HTMLParser):
    """What a page loads by itself, where it leads, its names for links, and its pictures."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.links, self.ids, self.images = [], [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        held = dict(attributes)
        self.ids.add(held.get("id"))
        if tag == "a" and held.get("href"):
            self.links.append(held["href"])
        if tag == "img":
            self.images.append(held)
        if tag in ("img", "script", "iframe", "source", "embed") and held.get("src"):
            self.loads.append(held["src"])
        if tag == "link" and held.get("rel") not in ("canonical", "next", "prev", "author", "search", "index"):
            self.loads.append(held.get("href", ""))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """(folder, page name -> page, what the build said)."""
    out = tmp_path_factory.mktemp("book") / "site"
    said = build_book.build(out)
    pages = {p.relative_to(out).as_posix(): _Page(p.read_text(encoding="utf-8"))
             for p in out.rglob("*.html") if "_static" not in p.parts}
    return out, pages, said


def test_every_notebook_and_page_is_there_and_can_be_searched(site):
    out, pages, said = site
    names = [f"notebooks/{p.stem}.html" for p in CHAPTERS] + [name.replace(".md", ".html") for name in build_book.PAGES]
    assert set(names) <= set(pages) and "search.html" in pages and (out / "searchindex.js").exists()
    assert not re.findall(r"(?:ERROR|CRITICAL)", said)
    start = (out / names[0]).read_text(encoding="utf-8")
    assert "theme-switch" in start and "bd-toc-item" in start  # dark mode and navigation


def test_nothing_is_asked_from_outside(site):
    out, pages, _ = site
    for name, page in pages.items():
        outside = [load for load in page.loads if urllib.parse.urlsplit(load).netloc]
        assert not outside, f"{name} loads {outside}"
        assert "unpkg.com" not in (out / name).read_text(encoding="utf-8")
    for sheet in out.rglob("*.css"):
        assert not re.search(r"@import[^;]*//|url\(\s*[\"']?(?:https?:)?//", sheet.read_text(encoding="utf-8")), sheet.name
    assert (out / "_static" / "mathjax" / "MathJax.js").exists()


def test_every_picture_is_there_and_has_a_description(site):
    for name, page in site[1].items():
        for image in page.images:
            assert image["src"].startswith("data:") or (site[0] / name).parent.joinpath(image["src"]).exists(), image["src"]
            assert image.get("alt"), f"{name}: {image.get('src')} has none"
            assert not re.search(r"[{}]|\.png$", image["alt"]), image["alt"]
            assert not image["alt"].startswith("figure of the section"), f"{name}: give the cell an alt: {image['alt']}"


def test_links_inside_the_site_lead_somewhere(site):
    out, pages, _ = site
    for name, page in pages.items():
        for link in page.links:
            parts = urllib.parse.urlsplit(link)
            if parts.scheme or parts.netloc or (not parts.path and not parts.fragment):
                continue
            target = (out / name).parent / urllib.parse.unquote(parts.path) if parts.path else out / name
            assert target.exists(), f"{name} links to {link}"
            found = pages.get(os.path.relpath(target, out)) if target.suffix == ".html" else None
            if found and parts.fragment:
                assert urllib.parse.unquote(parts.fragment) in found.ids, f"{name} links to {link}"


@pytest.mark.parametrize("width", [390, 1280])
def test_the_site_in_a_browser(site, width):
    """No request leaves the site, no script fails, formulas are drawn, nothing is wider than the screen."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    if CHROMIUM is None:
        pytest.skip(HOW)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site[0]))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    home = f"http://127.0.0.1:{server.server_port}/"
    asked, failed = [], []

    def visit(browser):
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.set_default_timeout(60_000)  # a busy machine; an idle one takes seconds
        page.on("request", lambda request: asked.append(request.url))
        page.on("response", lambda response: response.status >= 400 and failed.append(response.url))
        page.on("pageerror", lambda error: failed.append(str(error)))
        for name in ("docs/notation.html", f"notebooks/{CHAPTERS[3].stem}.html"):
            page.goto(home + name)
            page.wait_for_function("document.querySelectorAll('.math').length && [...document.querySelectorAll('.math')]"
                                   ".every(e => e.querySelector('.MathJax, .MathJax_Display'))")
            assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 2
        page.goto(f"{home}search.html?q=router")
        page.wait_for_selector("#search-results li a")

    try:
        with api.sync_playwright() as play:
            for last in (False, True):
                browser = play.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
                try:
                    visit(browser)
                    break
                except api.TimeoutError:  # once in some fifteen runs on an overloaded machine a page stood still for minutes
                    if last:
                        raise
                finally:
                    browser.close()
    finally:
        server.shutdown()
    outside = [url for url in asked if not url.startswith((home, "data:", "blob:", "about:"))]
    assert not outside and not failed
