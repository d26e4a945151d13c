"""Print the numbers of MODEL_CARD.md and DATA_CARD.md from what is shipped and what is drawn.

    python scripts/card_numbers.py model    # seconds
    python scripts/card_numbers.py data     # draws 900 synthetic films where they are not cached: minutes
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]


def table(header: list[str], rows: list[list[object]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def model() -> str:
    """The shipped weights: sizes, training, and what the tiny experts can and cannot do."""
    from medbridge import load_adapter

    adapter = load_adapter(ROOT / "data" / "quickstart")
    trained = sum(p.numel() for p in adapter.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in adapter.parameters()) - trained
    facts = [["experts", " + ".join(e.name for e in adapter.experts)], ["labels", ", ".join(adapter.labels)],
             ["trained numbers", f"{trained:,}"], ["frozen numbers", f"{frozen:,}"],
             ["trained on", f"{adapter.card['films']} films of {adapter.card['trained_on']}, seed {adapter.card['seed']}"],
             ["validation AUC (mean)", f"{adapter.card['val_auc']:.3f}"]]
    rows = []
    for path in sorted((ROOT / "data" / "tiny_experts").glob("*/card.json")):
        card = json.loads(path.read_text(encoding="utf-8"))
        zero = ", ".join(f"{task} {found:.2f} ({card['chance'][task]:.2f})" for task, found in card["zero_shot"].items())
        rows.append([card["name"], card["diet"], f"{card['images_seen']:,}", f"{card['bytes'] / 1e6:.1f} MB", zero])
    return "\n\n".join([
        table(["shipped adapter", "`data/quickstart`"], facts),
        table(["tiny expert", "diet", "pictures seen", "file", "zero-shot accuracy (chance)"], rows)])


def data() -> str:
    """PhantomCXR as `make quickstart` draws it: films, patients and prevalences by hospital, and the size of findings."""
    from medbridge.data import load_benchmark

    films = load_benchmark("phantom", n_films=900, seed=0)
    films_of = films.table
    header = ["label", *(f"hospital {h}" for h in sorted(films_of["hospital"].unique())), "median width of its boxes, pixels"]
    widths = (films.boxes["x1"] - films.boxes["x0"]).groupby(films.boxes["label"]).median()
    rows = [[label, *(f"{share:.1%}" for share in films_of.groupby("hospital")[label].mean()), f"{widths.get(label, np.nan):.0f}"]
            for label in films.labels]
    counts = films_of.groupby("hospital").agg(films=("image", "size"), patients=("patient_id", "nunique"))
    rows.insert(0, ["films (patients)", *(f"{r.films} ({r.patients})" for r in counts.itertuples()), ""])
    splits = films_of.groupby("split").agg(films=("image", "size"), patients=("patient_id", "nunique"))
    parts = [[split, splits.loc[split, "films"], splits.loc[split, "patients"]] for split in ("train", "val", "test")]
    return "\n\n".join([table(header, rows), table(["split", "films", "patients"], parts)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=("model", "data"))
    print({"model": model, "data": data}[parser.parse_args().which]())


if __name__ == "__main__":
    main()
