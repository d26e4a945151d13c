"""Search for similar films, precision beside chance, and a router that asks a memory."""

import numpy as np
import pytest
import torch
from samples import toy

from medbridge.adapter import save_adapter
from medbridge.errors import AdapterError, EvaluationError
from medbridge.extras.mixture_edit import without_expert
from medbridge.extras.retrieve import (
    FilmIndex,
    RetrievalRouter,
    joint_vectors,
    precision_at_k,
    query_vectors,
    summary_vectors,
    with_memory,
)
from medbridge.moe import Router
from medbridge.predict import predict
from medbridge.viz.plots import evidence_strip


def test_search_is_the_cosine_of_centred_vectors_and_leaves_the_patient_out():
    films = toy(list("aabc"), {"x": [1.0, 1, 0, np.nan]})
    vectors = np.array([[1.0, 0], [0.9, 0.1], [-1, 0.2], [-0.9, -0.3]])
    index = FilmIndex(films, vectors)
    near = index.search(vectors[:1], 2, ["a"])
    assert set(near.rows[0]) == {2, 3} and (np.diff(near.similarity) <= 0).all()
    with_own = index.search(vectors[:1], 4, ["a new patient"])
    assert with_own.rows[0, 0] == 0 and with_own.similarity[0, 0] == pytest.approx(1)
    centred = vectors - vectors.mean(0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    np.testing.assert_allclose(np.sort(with_own.similarity[0]), np.sort(unit[0] @ unit.T), atol=1e-6)
    evidence = index.evidence(with_own, 0)
    assert evidence["labels"].tolist()[0] == "x" and evidence["rank"].tolist() == [1, 2, 3, 4]
    for arguments, message in (
            ((vectors[:1], 1, []), "name the patient of every query"), ((vectors[:1], 3, ["a"]), "has 2 films to choose"),
            ((vectors[:1, :1], 1, ["a"]), "index has width 2")):
        with pytest.raises(ValueError, match=message):
            index.search(*arguments)
    with pytest.raises(ValueError, match="4 films"):
        FilmIndex(films, vectors[:2])


def test_precision_beside_chance():
    rng = np.random.default_rng(0)
    y = (rng.random(200) < 0.3).astype(float)
    films = toy([f"p{i // 2}" for i in range(200)], {"x": y})
    known, noise = np.stack([y, 1 - y], 1) + 0.01 * rng.normal(size=(200, 2)), rng.normal(size=(200, 5))
    for vectors, want in ((known, 1.0), (noise, y.mean())):
        index = FilmIndex(films, vectors)
        table = precision_at_k(index, index.search(vectors, 5, films.table["patient_id"]), films, n_boot=200)
        row = table[table["label"] == "mean"].iloc[0]
        assert row["queries"] == y.sum() and row["precision"] == pytest.approx(want, abs=0.08)
        assert row["chance"] == pytest.approx(y.mean(), abs=0.01)
        assert (row["gain_lo"] > 0.5) if want == 1 else (row["gain_lo"] < 0.05 < 0.1 + row["gain_hi"])
    with pytest.raises(EvaluationError, match="other labels"):
        precision_at_k(index, index.search(vectors, 1, films.table["patient_id"]), toy(list("ab"), {"z": [1.0, 0]}))


def test_vectors_of_a_model_and_of_frozen_summaries(scored):
    model, films = scored
    q, s = query_vectors(model, films["test"]), summary_vectors(films["test"])
    assert q.shape == (len(films["test"]), 64) and np.allclose(np.linalg.norm(q, axis=1), 1, atol=1e-5)
    assert np.allclose(np.linalg.norm(s, axis=1), 1, atol=1e-5) and len(s) == len(q)
    train = films["train"].benchmark
    index = FilmIndex(train, query_vectors(model, films["train"]))
    test = films["test"].benchmark
    near = index.search(q, 3, test.table["patient_id"])
    figure = evidence_strip(index, near, test, 0)
    assert "synthetic" in figure._suptitle.get_text() and len(figure.axes) == 4


def _memory(temperature, known=True):
    """Expert 0 is right near (1, 0), expert 1 near (0, 1)."""
    vectors = joint_vectors([torch.tensor([[1.0, 0], [1, 0.1], [0, 1], [0.1, 1]])])
    losses = torch.tensor([[0.1, 2.0], [0.1, 2.0], [2.0, 0.1], [2.0, 0.1]]).unsqueeze(-1)
    mask = torch.full((4, 1), known)
    base = Router([2], 1, "uniform")
    base.experts = 2
    return RetrievalRouter(base, vectors, losses, mask, 2, temperature)


def test_a_memory_trusts_whoever_was_right_on_the_nearesttoy():
    q = [torch.tensor([[1.0, 0.05], [0.05, 1.0]])]
    weights = _memory(0.5)(q)
    want = torch.softmax(torch.tensor([-0.1, -2.0]) / 0.5, dim=0)
    torch.testing.assert_close(weights[0, :, 0], want)
    torch.testing.assert_close(weights[1, :, 0], want.flip(0))
    torch.testing.assert_close(_memory(1e6)(q), torch.full((2, 2, 1), 0.5))
    torch.testing.assert_close(_memory(0.5, known=False)(q), torch.full((2, 2, 1), 0.5))  # nothing is known: the base stands


def test_a_film_is_not_its_own_neighbour_and_bad_arguments_are_named():
    router = _memory(0.5)
    router.losses[0] = torch.tensor([[9.0], [0.0]])
    weights = router([torch.tensor([[1.0, 0]])])  # film 0 itself: only film 1 counts
    torch.testing.assert_close(weights[0, :, 0], torch.softmax(torch.tensor([-0.1, -2.0]) / 0.5, dim=0))
    for options, message in (((5, 1.0), r"neighbours=5 must be in 1\.\.4"), ((1, 0.0), "temperature=0.0")):
        with pytest.raises(ValueError, match=message):
            RetrievalRouter(router.base, router.vectors, router.losses, router.known, *options)


def test_a_memory_changes_only_the_weights_and_is_not_saved(scored, tmp_path):
    model, films = scored
    new = with_memory(model, films["train"], 4, 0.05)
    old, mixed = (predict(m, films["test"], progress=False) for m in (model, new))
    np.testing.assert_allclose(old.expert_logits, mixed.expert_logits, atol=1e-6)
    assert np.abs(old.weights - mixed.weights).max() > 1e-3
    np.testing.assert_allclose(mixed.weights.sum(axis=1), 1, atol=1e-6)
    assert isinstance(model.router, Router) and with_memory(new, films["val"], 4).router.base is model.router
    with pytest.raises(AdapterError, match="memory of films is not stored"):
        save_adapter(new, tmp_path)
    assert isinstance(without_expert(new, "small-vit").router, Router)
