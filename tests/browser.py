"""Where the browser tests find a Chromium that starts: named, the system's, or Playwright's own. None where there is none."""

import os
import shutil
import subprocess
from pathlib import Path

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
HOW = "there is no Chromium: apt-get install chromium, or playwright install chromium"


def find_chromium():
    """The executable. Playwright's is tried, as it comes without the system's libraries."""
    if named := os.environ.get("MEDBRIDGE_CHROMIUM"):
        return named
    if found := shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome"):
        return found
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    with sync_playwright() as play:
        own = play.chromium.executable_path
    starts = Path(own).exists() and subprocess.run([own, "--version"], capture_output=True, check=False).returncode == 0
    return own if starts else None


CHROMIUM = find_chromium()
