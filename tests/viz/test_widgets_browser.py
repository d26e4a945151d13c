"""Every widget in a real JupyterLab, in headless Chromium: a control that the mouse or the keyboard moves changes the picture.

Skipped where Playwright or a Chromium is absent (tests/browser.py).
"""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest
from browser import ARGUMENTS, CHROMIUM, HOW

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=HOW)

ROOT = Path(__file__).resolve().parents[2]
PRELUDE = f"""
from functools import partial

import ipywidgets as w
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from medbridge import FeatureCache, FocalSampler, load_adapter, load_benchmark
from medbridge.predict import predict_film
from medbridge.viz import widgets
model = load_adapter({str(ROOT / "data" / "quickstart")!r})
films = load_benchmark("phantom", n_films=3, workers=1)
embedded = FeatureCache(progress=False, workers=0).films(films, list(model.experts), [[], []], FocalSampler(local=False))
y = np.random.default_rng(0).integers(2, size=(60, 2)).astype(float)
p = np.random.default_rng(1).random((60, 2))
numbers = {{f"{{split}}_{{name}}": 0.01 for split in ("val", "test") for name in ("diff", "lo", "hi", "holm")}}
table = pd.DataFrame([{{"factor": factor, "variant": factor}} | numbers for factor in ("default", "views", "pool")])


def curve(alpha, beta):
    fig = Figure()
    fig.subplots().plot(np.exp(-beta * np.linspace(0, 2)) * alpha)
    return fig
"""
# widget -> its cell, and what is moved, as it is named on the screen
WIDGETS = {
    "explore_views": ("widgets.explore_views(films.read(0))", [("crop", "slider")]),
    "explore_focus": ("widgets.explore_focus(films.read(0))",
                      [("across", "slider"), ("down", "slider"), ("side", "slider"), ("add a view", "button")]),
    "explore_film": ("widgets.explore_film(model, films)", [("film", "slider"), ("label", "Nodule")]),
    "explore_attention": ("widgets.explore_attention(model, films)",
                          [("film", "slider"), ("expert", "tiny-resnet-scenes"), ("layer", "1 of 2"), ("view", "slider"),
                           ("query", "slider")]),
    "explore_router": ("widgets.explore_router(model, films)", [("film", "slider")]),
    "explore_shift": ("widgets.explore_shift(partial(predict_film, model), films.read(0), model.labels)",
                      [("exposure", "slider"), ("contrast", "slider"), ("noise", "slider")]),
    "explore_prompts": ("widgets.explore_prompts(list(model.experts), embedded)",
                        [("prompt", "text"), ("films by", "Effusion"), ("expert", "tiny-resnet-scenes")]),
    "explore_regions": ("widgets.explore_regions(model, films.read(0))", [("look for", "text"), ("share", "slider")]),
    "explore_threshold": ("widgets.explore_threshold(y, p, ['first', 'second'])", [("threshold", "slider"), ("label", "second")]),
    "explore_cache": ("widgets.explore_cache(curve)", [("alpha", "slider"), ("beta", "slider")]),
    "explore": ("widgets.explore(curve, alpha=w.IntSlider(1, 1, 9, description='alpha'), "
                "beta=w.IntSlider(1, 1, 9, description='beta'))",
                [("alpha", "slider"), ("beta", "slider")]),
    "explore_ablation": ("widgets.explore_ablation(table, 'numbers of the test')", [("factor", "pool")]),
}


def test_no_widget_is_left_out():
    from medbridge.viz import widgets

    assert set(WIDGETS) == {name for name in vars(widgets) if name.startswith("explore")}


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """One JupyterLab for all; its folder holds one notebook with all widgets."""
    folder = tmp_path_factory.mktemp("lab")
    cells = [nbformat.v4.new_code_cell(source) for source in (PRELUDE, *(cell for cell, _ in WIDGETS.values()))]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}), folder / "widgets.ipynb")
    settings = folder / "settings" / "@jupyterlab"
    for name, text in (("notebook-extension/tracker", '{"windowingMode": "none"}'),  # cells out of sight stay in the page
                       ("apputils-extension/notification", '{"fetchNews": "false", "checkForUpdates": false}')):
        path = settings / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(text)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = os.environ | {"JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"), "PYTHONPATH": paths,
                        "MEDBRIDGE_CACHE": str(folder / "cache"), "JUPYTER_CONFIG_DIR": str(folder / "config"),
                        "JUPYTER_RUNTIME_DIR": str(folder / "runtime")}
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}", "--ServerApp.port_retries=0",
        "--IdentityProvider.token=widgets", f"--ServerApp.root_dir={folder}", "--LabApp.expose_app_in_browser=True"]
    log = folder / "lab.log"
    with log.open("w") as file:
        server = subprocess.Popen(command, cwd=folder, env=env, stdout=file, stderr=subprocess.STDOUT)
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api/status?token=widgets", timeout=2).close()
                break
            except OSError:
                assert server.poll() is None, log.read_text()
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/lab/tree/widgets.ipynb?token=widgets"
    finally:
        server.terminate()
        server.wait(60)


@pytest.fixture(scope="module")
def page(address):
    """The notebook, opened and run from top to bottom."""
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1500, "height": 1100})
        page.set_default_timeout(300_000)  # a busy machine; an idle one takes half a minute for everything
        page.goto(address)
        page.wait_for_function("window.jupyterapp && document.querySelectorAll('.jp-CodeCell').length > 1")
        # before its kernel is connected, a notebook says that it is idle, and runs nothing
        page.wait_for_function("""() => {
            const session = window.jupyterapp.shell.currentWidget?.sessionContext;
            return session?.isReady && session.session?.kernel?.connectionStatus === 'connected';
        }""")
        assert page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')") is True
        page.wait_for_function(f"document.querySelectorAll('.jp-OutputArea-output img').length >= {len(WIDGETS)}")
        yield page
        browser.close()


def _control(cell, name):
    """The control with this description."""
    return cell.locator(".widget-inline-hbox", has=cell.page.locator(".widget-label", has_text=name)).first


@pytest.mark.parametrize("name", WIDGETS)
def test_a_control_that_moves_changes_the_picture(page, name):
    cell = page.locator(".jp-CodeCell").nth(1 + list(WIDGETS).index(name))
    cell.scroll_into_view_if_needed()
    picture = cell.locator("img").first
    assert picture.evaluate("image => image.complete && image.naturalWidth > 200")
    for control, how in WIDGETS[name][1]:
        before, place = picture.get_attribute("src"), _control(cell, control)
        if how == "button":
            cell.get_by_role("button", name=control).click()
        elif how == "slider":
            place.locator(".noUi-handle").focus()
            page.keyboard.press("ArrowRight")
        elif how == "text":
            place.locator("input").fill("a large bright blob in the centre")
            place.locator("input").press("Enter")
        else:
            place.locator("select").select_option(label=how)
        page.wait_for_function("([image, before]) => image.src !== before && image.complete && image.naturalWidth > 200",
                               arg=[picture.element_handle(), before])
    assert cell.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
    if folder := os.environ.get("MEDBRIDGE_SCREENSHOTS"):
        cell.screenshot(path=str(Path(folder) / f"{name}.png"))
