"""One self-contained HTML file that tells a run: tables, curves, example films, router. Needs no network to open."""

import base64
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader

from medbridge.explain.attention import explain
from medbridge.focal import extract_views
from medbridge.studies.adapt import Adapted, Tested, comparison_table
from medbridge.viz import plots
from medbridge.viz.drawing import png, true_boxes


def _examples(tested: Tested, count: int) -> list[tuple[int, str]]:
    """The film and label of the strongest true positive of each of the ``count`` labels that MedBridge tells best."""
    test, auc = tested.target.test, tested.evaluations["MedBridge"].per_label["auc"].to_numpy()
    y, _ = test.targets()
    chosen: dict[int, str] = {}
    for c in np.argsort(-np.nan_to_num(auc)):
        films = [i for i in np.argsort(-tested.scores["MedBridge"][:, c]) if y[i, c] == 1 and i not in chosen]
        if films and len(chosen) < count:
            chosen[int(films[0])] = test.labels[c]
    return list(chosen.items())


def write_report(result: Adapted, path: str | Path, examples: int = 3) -> Path:
    """Write the HTML report of a run of :func:`medbridge.studies.adapt.adapt`, with ``examples`` films, each of another label.

    ``templates/report.html`` says what stands in it, and draws its pictures by :mod:`medbridge.viz.plots`.
    """
    test, films = result.tested[0].target.test, []
    for i, label in _examples(result.tested[0], examples):
        seen, findings = explain(result.model, test.read(i)), [name for name in test.labels if test.table[name].iloc[i] == 1]
        films.append({"name": test.image_ids()[i], "label": label, "findings": ", ".join(findings), "seen": seen,
                      "boxes": true_boxes(test, i, label),
                      "views": extract_views(seen.film, seen.boxes, *result.model.experts[0].view_kind).numpy()})
    template = Environment(loader=PackageLoader("medbridge.viz"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = template.get_template("report.html").render(
        result=result, first=result.tested[0], test=test, table=comparison_table(result), films=films, plots=plots,
        png=lambda figure: base64.b64encode(png(figure, 110)).decode(), nothing=np.isnan,
        trainable=sum(p.numel() for p in result.model.trainable().values()))
    Path(path).write_text(page, encoding="utf-8")
    return Path(path)
