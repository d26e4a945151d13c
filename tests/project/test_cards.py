"""The cards' numbers are what their command prints; the notation page names what the code has."""

import re
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import card_numbers  # noqa: E402


def _block(name, command):
    text = (ROOT / name).read_text(encoding="utf-8")
    return re.search(rf"<!-- begin: {re.escape(command)} -->\n(.*?)\n<!-- end -->", text, re.DOTALL)[1]


def test_the_model_card_says_what_is_shipped():
    assert _block("MODEL_CARD.md", "python scripts/card_numbers.py model") == card_numbers.model()


def test_the_cards_quote_the_readme():
    """Prose figures of the quickstart are those of the README's table."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    row = re.search(r"^mean +(\S+ \[.*?\]) +\S+ \[.*?\] +(\S+ \[.*?\]) +(\S+) \[(\S+), (\S+)\]$", readme, re.MULTILINE)
    card = " ".join((ROOT / "MODEL_CARD.md").read_text().split())
    assert f"mean AUC is {row[3]}, 95 % interval {row[4]} to {row[5]}, against {row[2]} for a linear probe on" in card
    assert f"mean AUC {row[1].split()[0]} in the README's table" in card
    assert row[0] in (ROOT / "bench" / "results" / "quickstart.txt").read_text(encoding="utf-8").splitlines()


def test_the_data_card_names_every_label_and_split():
    from medbridge.data import SPLITS
    from medbridge.data.phantom.benchmark import LABELS

    block = _block("DATA_CARD.md", "python scripts/card_numbers.py data")
    assert all(f"| {name} |" in block for name in (*LABELS, *SPLITS))


def test_the_notation_page_names_what_the_code_has(vit):
    from medbridge import AdapterConfig, FocalSampler, MedBridge
    from medbridge.data import Benchmark

    held = {"FocalSampler": FocalSampler(), "AdapterConfig": AdapterConfig(), "expert": vit, "model": MedBridge([vit], ["Mass"]),
            "benchmark": Benchmark, "film": np.zeros((2, 3))}
    page = (ROOT / "docs" / "notation.md").read_text(encoding="utf-8")
    named = re.findall(r"`(?:len\()?(\w+)\.(\w+)\)?`", page)
    assert len(named) >= 10 and all(hasattr(held[owner], name) for owner, name in named), named
