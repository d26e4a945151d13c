r"""Similar films as evidence: what did the nearest training films have? And a router that asks them. [ours]

After MMed-RAG (Xia et al., arXiv 2410.13085), which retrieves reports for a language model; here films and their labels are the
evidence. The router is after MedAlign (Chen et al., arXiv 2510.21093): there similarity chooses an expert, here weights are soft.
"""

import copy
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medbridge.data import Benchmark
from medbridge.errors import EvaluationError
from medbridge.features.films import FrozenFilms
from medbridge.metrics.bootstrap import label_means
from medbridge.model import MedBridge
from medbridge.predict import outputs


def joint_vectors(queries: list[Tensor]) -> Tensor:
    """K pooled queries ``(B, w_k)`` -> unit vectors ``(B, sum w)``, whose dot product is the experts' mean cosine."""
    return torch.cat([F.normalize(q.float(), dim=1) for q in queries], dim=1) / len(queries) ** 0.5


def query_vectors(model: MedBridge, films: FrozenFilms) -> np.ndarray:
    """One unit vector per film from the model's pooled queries: float32 ``(n, sum w)`` (:func:`joint_vectors`)."""
    return torch.cat([joint_vectors(o.pooled).cpu() for o in outputs(model, films)]).numpy()


def summary_vectors(films: FrozenFilms) -> np.ndarray:
    """One unit vector per film from the frozen summaries, experts side by side: float32 ``(n, sum d)``; nothing was trained."""
    return joint_vectors([torch.from_numpy(films.pooled("summary", k)) for k in range(len(films.depths))]).numpy()


class Neighbours(NamedTuple):
    """The nearest films of m queries, nearest first."""

    rows: np.ndarray  # int (m, k), of the index
    similarity: np.ndarray  # (m, k)


class FilmIndex:
    """n films to look up by vectors ``(n, d)``, which are centred (what all films share tells none apart) and normalised."""

    def __init__(self, benchmark: Benchmark, vectors: np.ndarray) -> None:
        vectors = np.asarray(vectors, dtype=np.float32)
        if vectors.ndim != 2 or len(vectors) != len(benchmark):
            raise ValueError(f"vectors has shape {vectors.shape}; the benchmark has {len(benchmark)} films")
        if not np.isfinite(vectors).all():
            raise ValueError("vectors holds NaN or infinite values")
        self.benchmark, self.patients = benchmark, benchmark.table["patient_id"].to_numpy()
        self.centre = vectors.mean(axis=0)
        self.vectors = self._unit(vectors)

    def _unit(self, vectors: np.ndarray) -> np.ndarray:
        moved = vectors - self.centre
        return moved / np.linalg.norm(moved, axis=1, keepdims=True).clip(min=1e-12)

    def search(self, vectors: np.ndarray, k: int, patients: Sequence[str]) -> Neighbours:
        """The k nearest films of m queries ``(m, d)`` by cosine; those of a query's own patient would show nothing new."""
        vectors = np.asarray(vectors, dtype=np.float32)
        if vectors.ndim != 2 or vectors.shape[1] != self.vectors.shape[1]:
            raise ValueError(f"vectors has shape {vectors.shape}; the index has width {self.vectors.shape[1]}")
        if len(patients) != len(vectors):
            raise ValueError("patients: name the patient of every query, whose own films are left out")
        similarity = self._unit(vectors) @ self.vectors.T
        similarity[np.asarray(patients)[:, None] == self.patients] = -np.inf
        most = int(np.isfinite(similarity).sum(axis=1).min())
        if not 1 <= k <= most:
            raise ValueError(f"k={k}: a query has {most} films to choose from")
        rows = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
        return Neighbours(rows, np.take_along_axis(similarity, rows, axis=1))

    def evidence(self, near: Neighbours, query: int) -> pd.DataFrame:
        """The neighbours of one query: rank, image, patient_id, similarity, labels (those present, joined by ', ')."""
        table, names = self.benchmark.table.iloc[near.rows[query]], self.benchmark.labels
        labels = [", ".join(c for c in names if row[c] == 1) or "no finding" for _, row in table.iterrows()]
        table = table.assign(rank=np.arange(1, len(table) + 1), similarity=near.similarity[query], labels=labels)
        return table[["rank", "image", "patient_id", "similarity", "labels"]].reset_index(drop=True)


def precision_at_k(index: FilmIndex, near: Neighbours, queries: Benchmark, n_boot: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Do films with a finding find films with it? One row per label that some query has, and the ``mean``.

    Columns: label, queries, precision (at k), chance (prevalence among other patients' films), gain (their difference), gain_lo,
    gain_hi (bootstrap over patients).
    """
    if tuple(queries.labels) != tuple(index.benchmark.labels):
        raise EvaluationError("queries and index have other labels; select the shared ones of both first")
    (y, known), (asked, asked_known) = index.benchmark.targets(), queries.targets()
    patients, findings = queries.table["patient_id"].to_numpy(), []
    for c, i in np.argwhere((asked_known & (asked == 1)).T):
        close = near.rows[i][known[near.rows[i], c]]
        everyone = (index.patients != patients[i]) & known[:, c]
        if len(close) and everyone.any():
            findings.append((queries.labels[c], patients[i], y[close, c].mean(), y[everyone, c].mean()))
    if not findings:
        raise EvaluationError("no query has a finding that the index knows of")
    each = pd.DataFrame(findings, columns=["label", "patient", "precision", "chance"])
    each["gain"] = each["precision"] - each["chance"]
    table = label_means(each, queries.labels, ["gain"], n_boot, seed, every="mean")
    return table.drop(columns="patients").rename(columns={"films": "queries"})


class RetrievalRouter(nn.Module):
    r"""Weights that ask how each expert did on the films most like this one; nothing is trained.

        g_kc  proportional to  base_kc exp(-L_kc / T),    L_kc = similarity-weighted mean loss of expert k on label c
                                                                 over the M nearest films of the memory

    ``base`` gives the weights before the memory is asked; they stand where no neighbour has a known label. The memory of n films
    is ``vectors`` ``(n, sum w)`` of :func:`joint_vectors`, ``losses`` ``(n, K, C)`` (cross-entropy of each expert alone) and
    ``known``, bool ``(n, C)``. Films that the experts were trained on flatter them; held-out ones are fairer. Other films of a
    patient are neighbours: never score the patients of the memory.
    """

    def __init__(
        self, base: nn.Module, vectors: Tensor, losses: Tensor, known: Tensor, neighbours: int = 16, temperature: float = 0.5
    ) -> None:
        super().__init__()
        if not 1 <= neighbours <= len(vectors):
            raise ValueError(f"neighbours={neighbours} must be in 1..{len(vectors)}, the films of the memory")
        if temperature <= 0:
            raise ValueError(f"temperature={temperature} must be above 0")
        self.base, self.neighbours, self.temperature = base, neighbours, temperature
        for name, value in (("vectors", vectors), ("losses", losses), ("known", known)):
            self.register_buffer(name, value, persistent=False)

    def forward(self, queries: list[Tensor]) -> Tensor:
        """K tensors ``(B, w_k)`` -> weights ``(B, K, C)``, which sum to 1 over the experts."""
        base = self.base(queries)
        near = (joint_vectors(queries) @ self.vectors.T).topk(self.neighbours, dim=1)
        near_enough = torch.where(near.values > 1 - 1e-5, 0.0, near.values.clamp(min=1e-6))  # the film itself has nothing to add
        trust = self.known[near.indices] * near_enough.unsqueeze(-1)  # (B, M, C)
        total = trust.sum(dim=1)
        loss = torch.einsum("bmc,bmkc->bkc", trust, self.losses[near.indices]) / total.clamp(min=1e-12).unsqueeze(1)
        weights = base * torch.softmax(-loss / self.temperature, dim=1)
        weights = weights / weights.sum(dim=1, keepdim=True).clamp(min=1e-12)
        return torch.where(total.unsqueeze(1) > 0, weights, base)


def with_memory(model: MedBridge, films: FrozenFilms, neighbours: int = 16, temperature: float = 0.5) -> MedBridge:
    """A copy of a trained model, which stays as it is, whose router asks a memory of films; weights and experts are shared."""
    y, known = (torch.as_tensor(part, device=model.device) for part in films.benchmark.targets())
    members = []
    for m, member in enumerate(model.members):
        pairs = [(joint_vectors(o.pooled), o.expert_logits.float()) for o in outputs(model, films, member=m)]
        vectors, logits = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        losses = F.binary_cross_entropy_with_logits(logits, y.unsqueeze(1).expand_as(logits), reduction="none")
        base = getattr(member.router, "base", member.router)  # a second memory replaces the first
        members.append(_copied(member, router=RetrievalRouter(base, vectors.clone(), losses, known, neighbours, temperature)))
    return _copied(model, members=nn.ModuleList(members)).eval()


def _copied(module: nn.Module, **parts: nn.Module) -> nn.Module:
    """A copy that shares all but these parts."""
    new = copy.copy(module)
    new._modules = {**module._modules, **parts}
    return new
