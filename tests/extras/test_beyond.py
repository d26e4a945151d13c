"""Triplets, routers by memory, retrieval, regions for words, change between films: each on small cases with a known answer."""

import numpy as np
import pandas as pd
import pytest
import torch
from test_model import LABELS, _batch, _perturbed

from medbridge.data import Benchmark
from medbridge.errors import AdapterError, ExpertError
from medbridge.explain.attention import explain
from medbridge.extras.change import change_report, film_pairs, fit_threshold, tell_change
from medbridge.extras.regions import prompt_attention, prompt_boxes, prompt_direction, prompt_maps, prompt_similarity
from medbridge.extras.retrieve import FilmIndex, precision_at_k, query_vectors, summary_vectors, with_memory
from medbridge.features.cache import compute_features
from medbridge.focal import FocalSampler
from medbridge.losses import label_overlap, triplet_loss
from medbridge.metrics.bootstrap import EvaluationError
from medbridge.metrics.localise import score_maps
from medbridge.model import MedBridge
from medbridge.moe import RetrievalRouter, Router, joint_vectors
from medbridge.predict import predict
from medbridge.train import TrainConfig
from medbridge.viz.plots import evidence_strip

# -- triplets -----------------------------------------------------------------------------------------------------------------


def test_overlap_is_jaccard_over_labels_that_both_films_know():
    y = torch.tensor([[1.0, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0]])
    m = torch.tensor([[1, 1, 1], [1, 1, 1], [1, 1, 1], [0, 0, 0]]).bool()
    got = label_overlap(y, m)
    assert got[0, 1] == 0.5 and got[0, 2] == 0 and got[2, 2] == 1 and torch.isnan(got[3]).all()
    m[1, 1] = False  # unknown is not absent
    assert label_overlap(y, m)[0, 1] == 1


def test_triplets_are_those_of_a_triple_loop_and_never_nan():
    torch.manual_seed(0)
    v, y, m = torch.randn(7, 4, requires_grad=True), torch.randint(2, (7, 3)).float(), torch.rand(7, 3) > 0.2
    m[6] = False
    unit, s = torch.nn.functional.normalize(v, dim=1), label_overlap(y, m)
    costs = []
    for a in range(7):
        for p in range(7):
            for n in range(7):
                if len({a, p, n}) == 3 and s[a, p] > s[a, n]:
                    costs.append(0.5 * (s[a, p] - s[a, n]) + unit[a] @ unit[n] - unit[a] @ unit[p])
    want = torch.stack([c for c in costs if c > 0]).mean()
    got = triplet_loss(v, y, m)
    torch.testing.assert_close(got, want)
    (grad,) = torch.autograd.grad(got, v)
    assert torch.isfinite(grad).all() and (grad[6] == 0).all() and grad.abs().sum() > 0
    assert triplet_loss(v, y, torch.zeros_like(m)) == 0


def test_descent_on_triplets_sorts_films_by_their_findings():
    torch.manual_seed(0)
    y, m = torch.eye(2).repeat(6, 1), torch.ones(12, 2, dtype=torch.bool)
    v = torch.randn(12, 8, requires_grad=True)
    optimiser = torch.optim.Adam([v], 0.1)
    for _ in range(100):
        optimiser.zero_grad()
        triplet_loss(v, y, m).backward()
        optimiser.step()
    unit = torch.nn.functional.normalize(v, dim=1)
    cosine = (unit @ unit.T)[label_overlap(y, m) == 0]
    assert triplet_loss(v, y, m) == 0 and cosine.max() < 0.5


def test_the_training_uses_the_triplet_term_only_where_it_is_asked_for(squares, vit, tmp_path):
    options = {"queries": 2, "query_layers": 1, "width": 16, "sampler": FocalSampler(local=False)}
    losses = []
    for weight in (0.0, 5.0):
        model = MedBridge([vit], squares.labels, **options)
        history = model.fit(squares, config=TrainConfig(epochs=1, triplet=weight), cache=tmp_path, progress=False)
        losses.append(history.rows[0]["loss"])
    assert losses[1] > losses[0] + 0.1
    with pytest.raises(ValueError, match="triplet=-1"):
        TrainConfig(triplet=-1)


# -- routers ------------------------------------------------------------------------------------------------------------------


def _random(router):
    torch.manual_seed(1)
    for p in router.parameters():
        torch.nn.init.normal_(p, std=0.5)  # larger weights would let the softmax underflow to zero
    return router.eval()


def test_a_shared_expert_is_kept_beside_the_top_k_of_the_others():
    torch.manual_seed(0)
    q = [torch.randn(9, 4) for _ in range(4)]
    weights = _random(Router([4] * 4, 3, top_k=1, shared=2))(q)
    full = _random(Router([4] * 4, 3))(q)
    assert ((weights > 0).sum(1) == 2).all() and (weights[:, 2] > 0).all()
    others = full.clone()
    others[:, 2] = 0  # of the others the strongest is kept
    assert (weights.gather(1, others.argmax(1, keepdim=True)) > 0).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(9, 3))
    with pytest.raises(ValueError, match=r"top_k=4 must be in 1\.\.3"):
        Router([4] * 4, 3, top_k=4, shared=0)


def test_noise_is_for_training_alone():
    q = [torch.randn(5, 4) for _ in range(3)]
    router = _random(Router([4] * 3, 2, noise=1.0))
    torch.testing.assert_close(router(q), router(q))
    assert (router.train()(q) - router(q)).abs().max() > 1e-3
    with pytest.raises(ValueError, match="noise=-1"):
        Router([4], 1, noise=-1)


def test_the_options_reach_the_model_and_survive_saving_and_editing(experts, tmp_path):
    model = MedBridge(experts, LABELS, width=32, top_k=1, shared_expert="small-resnet", router_noise=0.5)
    assert (model.router.shared, model.router.noise) == (1, 0.5)
    again = MedBridge.load(model.save(tmp_path), experts)
    assert again.config == model.config
    assert model.without_expert("small-resnet").config.shared_expert is None
    kept = model.without_expert("small-vit")
    assert kept.config.shared_expert == "small-resnet" and kept.router.shared == 0
    with pytest.raises(ValueError, match="shared_expert='x' is none of the experts small-vit, small-resnet"):
        MedBridge(experts, LABELS, shared_expert="x")


def _memory(temperature, known=True):
    """Expert 0 is right near (1, 0), expert 1 near (0, 1)."""
    vectors = joint_vectors([torch.tensor([[1.0, 0], [1, 0.1], [0, 1], [0.1, 1]])])
    losses = torch.tensor([[0.1, 2.0], [0.1, 2.0], [2.0, 0.1], [2.0, 0.1]]).unsqueeze(-1)
    mask = torch.full((4, 1), known)
    base = Router([2], 1, "uniform")
    base.experts = 2
    return RetrievalRouter(base, vectors, losses, mask, 2, temperature)


def test_a_memory_trusts_whoever_was_right_on_the_nearest_films():
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


@pytest.fixture(scope="module")
def scored(squares, experts, tmp_path_factory):
    """A trained-like model, and the cached films of each split."""
    model = _perturbed(MedBridge(experts, squares.labels, width=32, queries=4, sampler=FocalSampler(local=False)))
    cache = tmp_path_factory.mktemp("cache")
    films = {s: compute_features(squares.split(s), list(model.experts), model.depths, model.sampler, False, cache, progress=False)
             for s in ("train", "val", "test")}
    return model, films


def test_a_memory_changes_only_the_weights_and_is_not_saved(scored, tmp_path):
    model, films = scored
    new = with_memory(model, films["train"], 4, 0.05)
    old, mixed = (predict(m, films["test"], progress=False) for m in (model, new))
    np.testing.assert_allclose(old.expert_logits, mixed.expert_logits, atol=1e-6)
    assert np.abs(old.weights - mixed.weights).max() > 1e-3
    np.testing.assert_allclose(mixed.weights.sum(axis=1), 1, atol=1e-6)
    assert isinstance(model.router, Router) and with_memory(new, films["val"], 4).router.base is model.router
    with pytest.raises(AdapterError, match="memory of films is not stored"):
        new.save(tmp_path)
    assert isinstance(new.without_expert("small-vit").router, Router)


# -- retrieval ----------------------------------------------------------------------------------------------------------------


def _films(patients, labels):
    images = [f"{i}.png" for i in range(len(patients))]
    table = pd.DataFrame({"image": images, "patient_id": patients, "split": "train", **labels})
    return Benchmark("toy (synthetic)", ".", tuple(labels), table, synthetic=True)


def test_search_is_the_cosine_of_centred_vectors_and_leaves_the_patient_out():
    films = _films(list("aabc"), {"x": [1.0, 1, 0, np.nan]})
    vectors = np.array([[1.0, 0], [0.9, 0.1], [-1, 0.2], [-0.9, -0.3]])
    index = FilmIndex(films, vectors)
    found = index.search(vectors[:1], 2, ["a"])
    assert set(found.rows[0]) == {2, 3} and (np.diff(found.similarity) <= 0).all()
    with_own = index.search(vectors[:1], 4, same_patient=True)
    assert with_own.rows[0, 0] == 0 and with_own.similarity[0, 0] == pytest.approx(1)
    centred = vectors - vectors.mean(0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    np.testing.assert_allclose(np.sort(with_own.similarity[0]), np.sort(unit[0] @ unit.T), atol=1e-6)
    evidence = index.evidence(with_own, 0)
    assert evidence["labels"].tolist()[0] == "x" and evidence["rank"].tolist() == [1, 2, 3, 4]
    for arguments, message in (
            ((vectors[:1], 1), "name the patient of every query"), ((vectors[:1], 3, ["a"]), "has 2 films to choose"),
            ((vectors[:1, :1], 1, ["a"]), "index has width 2")):
        with pytest.raises(ValueError, match=message):
            index.search(*arguments)
    with pytest.raises(ValueError, match="4 films"):
        FilmIndex(films, vectors[:2])


def test_precision_beside_chance():
    rng = np.random.default_rng(0)
    y = (rng.random(200) < 0.3).astype(float)
    films = _films([f"p{i // 2}" for i in range(200)], {"x": y})
    told, noise = np.stack([y, 1 - y], 1) + 0.01 * rng.normal(size=(200, 2)), rng.normal(size=(200, 5))
    for vectors, want in ((told, 1.0), (noise, y.mean())):
        index = FilmIndex(films, vectors)
        table = precision_at_k(index, index.search(vectors, 5, films.table["patient_id"]), films, n_boot=200)
        row = table[table["label"] == "mean"].iloc[0]
        assert row["queries"] == y.sum() and row["precision"] == pytest.approx(want, abs=0.08)
        assert row["chance"] == pytest.approx(y.mean(), abs=0.01)
        assert (row["gain_lo"] > 0.5) if want == 1 else (row["gain_lo"] < 0.05 < 0.1 + row["gain_hi"])
    with pytest.raises(EvaluationError, match="other labels"):
        precision_at_k(index, index.search(vectors, 1, films.table["patient_id"]), _films(list("ab"), {"z": [1.0, 0]}))


def test_vectors_of_a_model_and_of_frozen_summaries(scored):
    model, films = scored
    q, s = query_vectors(model, films["test"], 5), summary_vectors(films["test"])
    assert q.shape == (len(films["test"]), 64) and np.allclose(np.linalg.norm(q, axis=1), 1, atol=1e-5)
    assert np.allclose(np.linalg.norm(s, axis=1), 1, atol=1e-5) and len(s) == len(q)
    train = films["train"].benchmark
    index = FilmIndex(train, query_vectors(model, films["train"]))
    test = films["test"].benchmark
    found = index.search(q, 3, test.table["patient_id"])
    figure = evidence_strip(index, found, test, 0)
    assert "synthetic" in figure._suptitle.get_text() and len(figure.axes) == 4


# -- regions ------------------------------------------------------------------------------------------------------------------


def test_boxes_are_the_connected_parts_in_pixels_of_the_film():
    heat = np.zeros((20, 40))
    heat[2:4, 10:20], heat[15:18, 30:32], heat[10, 0] = 1.0, 0.7, 0.9
    got = prompt_boxes(heat, (200, 800), share=0.5, least=0.003)
    assert got.round(2).to_numpy().tolist() == [[200, 20, 400, 40, 1.0], [600, 150, 640, 180, 0.7]]
    assert len(prompt_boxes(heat, (200, 800), share=0.8, least=0.003)) == 1
    assert len(prompt_boxes(np.zeros((4, 4)), (8, 8))) == 0
    with pytest.raises(ValueError, match="share=0"):
        prompt_boxes(heat, (8, 8), share=0)


def test_similarity_of_patches_is_maskclips(vit, resnet):
    film = np.random.default_rng(0).random((64, 64)).astype(np.float32)
    for expert in (vit, resnet):
        heat = prompt_similarity(expert, film, "a bright square", side=64)
        assert heat.shape == (64, 64) and heat.min() == 0 and heat.max() == pytest.approx(1)
        other = prompt_similarity(expert, film, "a dark line", side=64)
        assert np.abs(heat - other).max() > 1e-3
    # a ResNet's attention pooling over one place alone is that place's own embedding
    visual = resnet.model.visual
    from medbridge.extras.regions import _dense

    x = torch.randn(1, 3, 64, 64)
    tokens = resnet.encode_maps(x, [5]).maps[5].clone()
    pool = visual.attnpool
    want = torch.nn.functional.normalize(pool.c_proj(pool.v_proj(tokens[:, 3])), dim=-1)
    torch.testing.assert_close(_dense(resnet, x)[:, 1, 1], want)


def test_a_map_of_similarity_finds_what_the_expert_was_taught(tiny):
    """The shipped ViT knows bright blobs on dark ground; the map must be a map of this film, not of every film."""
    film = np.full((256, 256), 0.2, np.float32)
    film[160:220, 30:90] = 1
    heat, mirrored = (prompt_similarity(tiny, f, "a large bright round blob", side=32) for f in (film, film[:, ::-1].copy()))
    assert np.abs(heat - mirrored).max() > 0.05


def test_attention_for_words_is_a_mixture_of_the_queries_maps(scored):
    model, films = scored
    film = films["test"].benchmark.read(0)
    seen = explain(model, film)
    assert [t.shape for t in seen.tokens] == [(5, 32), (5, 32)]
    heat = prompt_attention(model, seen, "a bright square", side=32)
    assert heat.shape == (24, 32) and heat.max() == pytest.approx(1) and (heat >= 0).all()
    reads = [np.full(4, 0.25)] * 2
    np.testing.assert_allclose(seen.density([4 * r for r in reads], seen.weights[:, 0], 32),
                               seen.density(reads, seen.weights[:, 0], 32), atol=1e-5)
    label = seen.labels[0]
    np.testing.assert_allclose(seen.heatmap(label, 32), seen.density([m[0, :-1] for m in seen.mix], seen.weights[:, 0], 32))
    with pytest.raises(ValueError, match="the prompt is empty"):
        prompt_direction(model.experts[0], " ")


def test_maps_are_scored_beside_chance(scored, squares):
    model, films = scored
    test = films["test"].benchmark
    boxes = pd.DataFrame([(image, "wide", 0.0, 80.0, 128.0, 90.0) for image in test.image_ids()[:6]],
                         columns=["image", "label", "x0", "y0", "x1", "y1"])
    boxed = Benchmark(test.name, test.root, test.labels, test.table, True, boxes)
    for source in (model, model.experts[0]):
        table = score_maps(prompt_maps(source), boxed, ["wide"], n_boot=50, progress=False)
        assert table["films"].tolist() == [6] and 0 < table["hit_chance"].iloc[0] < 0.2
    # a map that is the answer scores 1
    from medbridge.metrics.localise import box_mask

    truth = score_maps(lambda film: lambda _: box_mask([[0, 80, 128, 90]], film.shape, (24, 32)).astype(float), boxed, ["wide"],
                       n_boot=50, progress=False)
    assert truth["hit"].iloc[0] == truth["iou"].iloc[0] == 1
    with pytest.raises(EvaluationError, match="no boxes of bright"):
        score_maps(prompt_maps(model), boxed, ["bright"], progress=False)


def test_a_tower_without_words_for_its_patches_says_so():
    import timm

    from medbridge.experts.timm_vision import TimmExpert

    text = torch.nn.Identity()
    text.text_dim = 4
    expert = TimmExpert("t", timm.create_model("test_vit", num_classes=0), text, 160)
    with pytest.raises(ExpertError, match="take an open_clip ViT or ResNet"):
        from medbridge.extras.regions import _dense
        _dense(expert, torch.zeros(1, 3, 160, 160))


# -- change -------------------------------------------------------------------------------------------------------------------


def _visits():
    return _films(list("aabcccd"), {"x": [0.0, 1, 1, 1, 0, 0, 1], "y": [0.0, 0, 1, 0, np.nan, 1, 0]})


def test_pairs_are_consecutive_films_of_a_patient():
    pairs = film_pairs(_visits())
    assert pairs.before.tolist() == [0, 3, 4] and pairs.after.tolist() == [1, 4, 5] and pairs.patients.tolist() == ["a", "c", "c"]
    assert pairs.change[:, 0].tolist() == [1, -1, 0] and pairs.known.tolist() == [[True, True], [True, False], [True, False]]
    shuffled = _visits().take([5, 1, 0, 2, 4, 3, 6])
    shuffled.table["visit"] = [int(i.split(".")[0]) for i in shuffled.table["image"]]
    again = film_pairs(shuffled, order="visit")
    assert [shuffled.table["image"][i] for i in again.before] == ["0.png", "3.png", "4.png"]
    for benchmark, order, message in (
            (_visits(), "date", "order='date' is no column"), (_visits().take([0, 2]), None, "nothing can have")):
        with pytest.raises(EvaluationError, match=message):
            film_pairs(benchmark, order)


def _many(noise, seed=0):
    rng = np.random.default_rng(seed)
    y = (rng.random((400, 2)) < 0.4).astype(float)
    films = _films([f"p{i // 2}" for i in range(400)], {"x": y[:, 0], "y": y[:, 1]})
    patient = np.repeat(rng.normal(size=(200, 2)), 2, axis=0)  # some patients look worse than they are, on every film
    return films, 2 * y + 2 * patient + noise * rng.normal(size=(400, 2))


def test_a_patients_own_look_cancels_in_the_difference():
    films, logits = _many(0.3)
    pairs = film_pairs(films)
    threshold = fit_threshold(pairs.differences(logits), pairs)
    assert 0.5 < threshold < 1.8
    report = change_report(pairs, logits, threshold, n_boot=100)
    assert report.new.macro["auc"] > 0.97 and report.new_gain.lo > 0.1 and report.resolved_gain.lo > 0.1
    assert report.lo < report.accuracy < report.hi and report.accuracy > 0.9
    assert sum(report.counts.values()) == 2 * len(pairs) == 2 * report.pairs


def test_noise_is_chance():
    films, logits = _many(0.3)
    pairs = film_pairs(films)
    noise = np.random.default_rng(1).normal(size=logits.shape)
    report = change_report(pairs, noise, 1.0, n_boot=100)
    assert report.new.macro["lo"] < 0.5 < report.new.macro["hi"] and report.lo < 1 / 3 < report.hi
    assert tell_change(np.array([-2.0, -0.5, 0.5, 2.0]), 1.0).tolist() == [-1, 0, 0, 1]
    still = film_pairs(_films(list("aabb"), {"x": [1.0, 1, 0, 0]}))
    with pytest.raises(EvaluationError, match="no threshold can be chosen"):
        fit_threshold(np.zeros((2, 1)), still)


# -- many experts -------------------------------------------------------------------------------------------------------------


def test_experts_of_other_kinds_sizes_widths_and_depths_mix(experts, tiny):
    import timm

    from medbridge.experts.timm_vision import TimmExpert
    from medbridge.features.cost import cost_table, expert_cost

    text = torch.nn.Embedding(1, 20)
    text.text_dim = 20
    text.forward = lambda texts: torch.nn.functional.normalize(torch.ones(len(texts), 20) + torch.arange(20) % 3, dim=-1)
    more = [TimmExpert("timm-vit", timm.create_model("test_vit", num_classes=0, img_size=96), text, 96),
            TimmExpert("timm-convnext", timm.create_model("test_convnext", num_classes=0), text, 160), tiny]
    model = _perturbed(MedBridge([*experts, *more], LABELS, width=32))
    shapes = {(e.size, e.depth, e.widths[-1], e.text_dim) for e in model.experts}
    assert len({s[0] for s in shapes}) >= 4 and len({s[1] for s in shapes}) >= 3 and len({s[2] for s in shapes}) >= 4
    out = model(_batch(model))
    assert out.logits.shape == (3, 3) and out.weights.shape == (3, 5, 3) and torch.isfinite(out.logits).all()
    torch.testing.assert_close(out.logits, (out.weights * out.expert_logits).sum(1))
    table = cost_table([expert_cost(e, views=1, repeats=1) for e in model.experts])
    assert all(e.name in table for e in model.experts)
