"""Similar films as evidence: what did the nearest training films have? And a router that asks them. [ours]

After MMed-RAG (Xia et al., arXiv 2410.13085). Theirs: reports of similar images are retrieved for a language model, with a
retriever for each medical domain, a choice of how many contexts to keep, and preference fine-tuning. Ours: no language model.
The retrieved films and their labels are the evidence themselves, shown beside a prediction and never mixed into it.

Films of the same patient are left out unless they are asked for: they would be found first and tell nothing new.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from medbridge.data import Benchmark
from medbridge.features.cache import CachedFilms
from medbridge.metrics.bootstrap import EvaluationError, bootstrap_means, group_codes, percentiles
from medbridge.model import MedBridge
from medbridge.moe import RetrievalRouter, joint_vectors
from medbridge.predict import outputs

__all__ = ["FilmIndex", "Found", "precision_at_k", "query_vectors", "summary_vectors", "with_memory"]


def query_vectors(model: MedBridge, films: CachedFilms, batch_size: int = 32) -> np.ndarray:
    """One unit vector a film from the model's pooled queries: float32 ``(n, sum w)`` (:func:`medbridge.moe.joint_vectors`)."""
    return torch.cat([joint_vectors(o.pooled).cpu() for o in outputs(model, films, batch_size)]).numpy()


def summary_vectors(films: CachedFilms, views: str = "whole") -> np.ndarray:
    """One unit vector a film from the frozen summaries, experts side by side: float32 ``(n, sum d)``; nothing was trained."""
    parts = [torch.from_numpy(films.pooled("summary", k, views)) for k in range(len(films.located))]
    # what all films share would drown what tells them apart; the index centres by its own mean
    return torch.cat([F.normalize(p, dim=1) for p in parts], dim=1).div(len(parts) ** 0.5).numpy()


@dataclass(frozen=True)
class Found:
    """What m queries found: ``rows`` int ``(m, k)`` of the index, nearest first, and ``similarity`` ``(m, k)``."""

    rows: np.ndarray
    similarity: np.ndarray


class FilmIndex:
    """Films to look up, with a unit vector each; search is exact, one matrix product.

    Args:
        benchmark: n films, the usual case a train split.
        vectors: ``(n, d)``, in the films' order. They are centred by their mean and normalised; so are queries.

    Raises:
        ValueError: a count that differs, or vectors that are not finite.
    """

    def __init__(self, benchmark: Benchmark, vectors: np.ndarray) -> None:
        vectors = np.asarray(vectors, dtype=np.float32)
        if vectors.ndim != 2 or len(vectors) != len(benchmark):
            raise ValueError(f"vectors has shape {vectors.shape}; the benchmark has {len(benchmark)} films")
        if not np.isfinite(vectors).all():
            raise ValueError("vectors holds NaN or infinite values")
        self.benchmark = benchmark
        self.centre = vectors.mean(axis=0)
        self.vectors = self._unit(vectors)
        self.patients = benchmark.table["patient_id"].to_numpy()

    def _unit(self, vectors: np.ndarray) -> np.ndarray:
        moved = vectors - self.centre
        return moved / np.linalg.norm(moved, axis=1, keepdims=True).clip(min=1e-12)

    def search(
        self, vectors: np.ndarray, k: int = 5, patients: Sequence[str] | None = None, same_patient: bool = False
    ) -> Found:
        """The k nearest films of each query by cosine.

        Args:
            vectors: ``(m, d)`` of the queries. k: how many.
            patients: the queries' patients; needed to leave their own films out.
            same_patient: ``True`` lets a query's own patient be found; the film itself is then found too, if it is in the index.

        Raises:
            ValueError: no patients although their films are to be left out, other widths, or fewer than k films to choose from.
        """
        vectors = np.asarray(vectors, dtype=np.float32)
        if vectors.ndim != 2 or vectors.shape[1] != self.vectors.shape[1]:
            raise ValueError(f"vectors has shape {vectors.shape}; the index has width {self.vectors.shape[1]}")
        similarity = self._unit(vectors) @ self.vectors.T
        if not same_patient:
            if patients is None or len(patients) != len(vectors):
                raise ValueError("patients: name the patient of every query, whose own films are left out; or same_patient=True")
            similarity[np.asarray(patients)[:, None] == self.patients[None, :]] = -np.inf
        if not 1 <= k <= int(np.isfinite(similarity).sum(axis=1).min()):
            raise ValueError(f"k={k}: a query has {int(np.isfinite(similarity).sum(axis=1).min())} films to choose from")
        rows = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
        return Found(rows, np.take_along_axis(similarity, rows, axis=1))

    def evidence(self, found: Found, query: int) -> pd.DataFrame:
        """What one query found: rank, image, patient_id, similarity, labels (those present, joined by ', ')."""
        table = self.benchmark.table.iloc[found.rows[query]]
        labels = [", ".join(c for c in self.benchmark.labels if row[c] == 1) or "no finding" for _, row in table.iterrows()]
        found_here = table[["image", "patient_id"]].reset_index(drop=True)
        found_here.insert(0, "rank", np.arange(1, len(table) + 1))
        return found_here.assign(similarity=found.similarity[query], labels=labels)


def precision_at_k(
    index: FilmIndex, found: Found, queries: Benchmark, n_boot: int = 1000, seed: int = 0, level: float = 0.95
) -> pd.DataFrame:
    """Do films with a finding find films with it? Precision at k beside chance, by label and in the mean.

    Chance is what k films drawn at random from the index would score, the query's own patient apart: the label's prevalence.

    Returns:
        One row a label that some query has, and ``mean`` over the queries' findings: label, queries, precision, chance, gain,
        gain_lo, gain_hi (precision minus chance, bootstrap over patients).

    Raises:
        EvaluationError: other labels than the index, or no query with a finding.
    """
    if tuple(queries.labels) != tuple(index.benchmark.labels):
        raise EvaluationError("queries and index have other labels; select the shared ones of both first")
    y, known = index.benchmark.targets()
    wanted, told = queries.targets()
    own = index.patients[None, :] != queries.table["patient_id"].to_numpy()[:, None]  # (m, n): who may be found
    rows = []
    for c, label in enumerate(queries.labels):
        for i in np.flatnonzero(told[:, c] & (wanted[:, c] == 1)):
            near, all_of = found.rows[i], own[i] & known[:, c]
            if known[near, c].any() and all_of.any():
                rows.append({"label": label, "patient": queries.table["patient_id"].iloc[i],
                             "precision": y[near, c][known[near, c]].mean(), "chance": y[all_of, c].mean()})
    if not rows:
        raise EvaluationError("no query has a finding that the index knows of")
    each = pd.DataFrame(rows)
    out = []
    for label in (*queries.labels, "mean"):
        part = each if label == "mean" else each[each["label"] == label]
        if len(part) == 0:
            continue
        gain = (part["precision"] - part["chance"]).to_numpy()
        lo, hi = percentiles(bootstrap_means(gain[:, None], group_codes(part["patient"], len(part)), n_boot, seed), level)
        out.append({"label": label, "queries": len(part), "precision": part["precision"].mean(), "chance": part["chance"].mean(),
                    "gain": gain.mean(), "gain_lo": lo[0], "gain_hi": hi[0]})
    return pd.DataFrame(out)


def with_memory(model: MedBridge, films: CachedFilms, neighbours: int = 16, temperature: float = 0.5) -> MedBridge:
    """A copy of a trained model whose router asks a memory of films; nothing is trained, weights and experts are shared.

    Args:
        model: trained; it is not changed. films: the memory, with labels. The others: see :class:`medbridge.moe.RetrievalRouter`.
    """
    y, known = films.benchmark.targets()
    found = list(outputs(model, films))
    vectors = torch.cat([joint_vectors(o.pooled) for o in found])
    logits = torch.cat([o.expert_logits for o in found]).float()
    truth = torch.as_tensor(y, device=logits.device).unsqueeze(1).expand_as(logits)
    losses = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    # a second memory replaces the first
    base = model.router.base if isinstance(model.router, RetrievalRouter) else model.router
    new = copy.copy(model)
    new._modules = dict(model._modules)
    new.router = RetrievalRouter(
        base, vectors.clone(), losses.clone(), torch.as_tensor(known, device=logits.device), neighbours, temperature)
    return new.eval()
