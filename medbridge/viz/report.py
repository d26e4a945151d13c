"""One self-contained HTML file that tells a run: tables, curves, example films, router. Needs no network to open."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader
from matplotlib.figure import Figure

from medbridge.explain.attention import explain
from medbridge.focal import extract_views
from medbridge.studies.adapt import Adapted, Tested, comparison_table
from medbridge.viz import plots
from medbridge.viz.drawing import png, true_boxes


def _embed(figure: Figure) -> str:
    return base64.b64encode(png(figure, 110)).decode()


def _examples(tested: Tested, count: int) -> list[tuple[int, str]]:
    """The film and label of the strongest true positive of each of the ``count`` labels that MedBridge tells best. [ours]"""
    test, auc = tested.target.test, tested.evaluations["MedBridge"].per_label["auc"].to_numpy()
    y, _ = test.targets()
    chosen: list[tuple[int, str]] = []
    for c in np.argsort(-np.nan_to_num(auc)):
        films = [i for i in np.argsort(-tested.scores["MedBridge"][:, c]) if y[i, c] == 1 and i not in {f for f, _ in chosen}]
        if films and len(chosen) < count:
            chosen.append((int(films[0]), test.labels[c]))
    return chosen


def _beyond_auc(tested: Tested) -> dict[str, Any]:
    """What the section beyond AUC shows of one target."""
    test = tested.target.test
    y, mask = test.targets()
    mark = "SYNTHETIC films" if test.synthetic else None
    return {"name": test.name, "cards": tested.scorecards, "groups": list(tested.subgroups.itertuples()),
            "specificity": next(iter(tested.scorecards.values())).specificity,
            "reliability": _embed(plots.reliability_plot(y, tested.scores, mask, title=mark))}


def write_report(result: Adapted, path: str | Path, examples: int = 3) -> Path:
    """Write the HTML report of a run of :func:`medbridge.studies.adapt.adapt`, with ``examples`` films, each of another label."""
    first = result.tested[0]
    test = first.target.test
    y, mask = test.targets()
    mark, names = "SYNTHETIC films" if test.synthetic else "", [e.name for e in result.model.experts]
    films = []
    for i, label in _examples(first, examples):
        seen = explain(result.model, test.read(i))
        views = extract_views(seen.film, seen.boxes, *result.model.experts[0].view_kind).numpy()
        films.append({
            "name": test.image_ids()[i], "label": label, "size": result.model.experts[0].size,
            "findings": ", ".join(name for name, value in zip(test.labels, y[i], strict=True) if value == 1),
            "attention": _embed(plots.query_attention(seen, label, true_boxes(test, i, label), mark)),
            "views": _embed(plots.view_strip(views, title=mark)),
        })
    page = Environment(
        loader=PackageLoader("medbridge.viz"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
    ).get_template("report.html").render(
        result=result, test=test, table=comparison_table(result), films=films, mark=mark,
        experts=names, trainable=sum(p.numel() for p in result.model.trainable().values()), nothing=np.isnan,
        targets=[_beyond_auc(tested) for tested in result.tested],
        bars=_embed(plots.auc_bars(first.evaluations, mark)),
        roc=_embed(plots.roc_curves(y, first.scores, mask, test.labels, mark)),
        router=_embed(plots.router_weights(
            first.prediction.weights, names, test.labels,
            f"router weights{', ' + mark if mark else ''}: mean over films ± standard deviation")),
        curves=_embed(plots.training_curves(result.history.rows, result.history.best_epoch, mark)),
    )
    Path(path).write_text(page, encoding="utf-8")
    return Path(path)
