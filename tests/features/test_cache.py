import os
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from tqdm import tqdm

from medbridge.errors import ImageError
from medbridge.features import encode
from medbridge.features.batch import collate
from medbridge.features.cache import FeatureCache
from medbridge.focal import FocalSampler, extract_views

DEPTHS = [[2, 3], [4, 5]]


def _compute(squares, experts, folder, training=False, depths=DEPTHS, **sampler):
    return FeatureCache(folder, progress=False).films(squares, experts, depths, FocalSampler(**sampler), training)


@pytest.fixture
def counted(monkeypatch):
    """How many views each expert has encoded."""
    seen = {}
    plain = encode.encode_views

    def count(expert, views, *rest, **options):
        seen[expert.name] = seen.get(expert.name, 0) + len(views)
        return plain(expert, views, *rest, **options)

    monkeypatch.setattr(encode, "encode_views", count)
    return seen


def test_features_are_what_the_expert_says_of_the_views(squares, experts, tmp_path):
    part = squares.take(range(3))
    films = _compute(part, experts, tmp_path)
    got, film = films[1], part.read(1)
    boxes = FocalSampler().inference_boxes(*film.shape)
    assert got.fixed == len(boxes) == len(got.boxes) == 13
    for k, expert in enumerate(experts):
        want = expert.encode_maps(expert.preprocess(extract_views(film, boxes, expert.size)), DEPTHS[k])
        torch.testing.assert_close(got.summary[k].float(), want.summary, rtol=2e-3, atol=2e-3)
        for layer, depth in enumerate(DEPTHS[k]):
            torch.testing.assert_close(got.maps[k][layer].float(), want.maps[depth], rtol=2e-3, atol=2e-3)


def test_nothing_is_computed_twice_and_a_larger_budget_adds_only_its_films(squares, experts, tmp_path, counted):
    _compute(squares.take(range(4)), experts, tmp_path)
    first = dict(counted)
    _compute(squares.take(range(4)), experts, tmp_path)
    assert counted == first
    _compute(squares.take(range(6)), experts, tmp_path)
    assert counted == {name: n * 6 // 4 for name, n in first.items()}


def test_a_missing_depth_is_added_and_the_others_are_kept(squares, experts, tmp_path):
    part = squares.take(range(2))
    before = _compute(part, experts, tmp_path)[0]
    _compute(part, experts, tmp_path, depths=[[1], [3]])
    after = _compute(part, experts, tmp_path)[0]
    assert all(torch.equal(a, b) for k in range(2) for a, b in zip(before.maps[k], after.maps[k], strict=True))


def test_an_interrupted_run_keeps_what_was_finished(squares, experts, tmp_path, monkeypatch, counted):
    part = squares.take(range(12))
    plain, calls = encode.encode_views, []

    def stop(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:  # between the two experts of the first group
            raise KeyboardInterrupt
        return plain(*args, **kwargs)

    monkeypatch.setattr(encode, "encode_views", stop)
    with pytest.raises(KeyboardInterrupt):
        _compute(part, experts, tmp_path)
    monkeypatch.setattr(encode, "encode_views", plain)
    done = counted["small-vit"]
    assert 0 < done < 12 * 13 and "small-resnet" not in counted
    _compute(part, experts, tmp_path)
    assert counted == {"small-vit": 12 * 13, "small-resnet": 12 * 13}
    assert not list(tmp_path.rglob("*.part*"))


def test_a_damaged_file_is_computed_again(squares, experts, tmp_path):
    part = squares.take(range(2))
    films = _compute(part, experts, tmp_path)
    films.files[0][1].write_bytes(b"broken")
    assert torch.equal(_compute(part, experts, tmp_path)[1].maps[0][0].isfinite(), torch.ones(13, 17, 32, dtype=torch.bool))


def test_other_boxes_a_changed_film_and_other_weights_have_files_of_their_own(squares, experts, tmp_path):
    part = squares.take(range(1))
    base = _compute(part, experts, tmp_path).files
    assert _compute(part, experts, tmp_path, crop=0.6).files[0] != base[0]
    assert _compute(part, experts, tmp_path, training=True).files[0] != base[0]
    root = tmp_path / "films"
    root.mkdir()
    path = root / part.paths()[0].name
    path.write_bytes(part.paths()[0].read_bytes())
    moved = replace(part, root=root)
    assert _compute(moved, experts, tmp_path).files == base  # the same film under another path
    film = np.asarray(Image.open(path)).copy()
    film[5, 5] ^= 255
    Image.fromarray(film).save(path)
    assert _compute(moved, experts, tmp_path).files[0] != base[0]
    Image.fromarray(film).save(path, "BMP")  # without checksums
    before, status = _compute(moved, experts, tmp_path).keys, path.stat()
    data = bytearray(path.read_bytes())
    data[-3] ^= 1  # another film in a file of the same length
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # and of the same time
    assert path.stat().st_size == status.st_size and _compute(moved, experts, tmp_path).keys != before
    for name, value in (("precision", "bfloat16"), ("interpolation", "bicubic")):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(experts[0], name, value)
            assert _compute(part, experts, tmp_path).files[0][0].parent != base[0][0].parent, name
    mean = experts[0].mean.clone()
    experts[0].mean += 0.125
    try:
        assert _compute(part, experts, tmp_path).files[0][0].parent != base[0][0].parent
    finally:
        experts[0].mean.copy_(mean)
    weight = experts[0].model.visual.conv1.weight
    own = weight.detach().clone()
    weight.data += 1
    try:
        assert _compute(part, experts, tmp_path).files[0][0].parent != base[0][0].parent
    finally:
        weight.data.copy_(own)  # to the last bit: other tests share the expert


def test_a_film_that_cannot_be_read_is_named(squares, experts, tmp_path):
    part = squares.take(range(2))
    root = tmp_path / "films"
    root.mkdir()
    (root / "000.png").write_bytes(part.paths()[0].read_bytes())
    (root / "001.png").write_bytes(part.paths()[1].read_bytes()[:900])
    with pytest.raises(ImageError, match=r"001\.png"):
        _compute(replace(part, root=root), experts, tmp_path / "cache")


def test_pooled_vectors(squares, experts, tmp_path):
    films = _compute(squares.take(range(3)), experts, tmp_path, training=True)
    x = films[2].summary[0][: films.fixed[2]].float()
    np.testing.assert_allclose(films.pooled("summary", 0)[2], x[0].numpy())
    np.testing.assert_allclose(
        films.pooled("summary", 0, "all")[2], torch.cat([x[0], x.mean(0), x.max(0).values]).numpy(), rtol=1e-5)


def test_training_draws_from_the_pool_and_inference_takes_the_windows(squares, experts, tmp_path):
    film = _compute(squares.take(range(1)), experts, tmp_path, training=True, extra=5)[0]
    assert len(film.boxes) == film.fixed + 5
    fixed = film.draw()
    assert torch.equal(fixed.boxes, film.boxes[: film.fixed])
    drawn = [film.draw(np.random.default_rng(s)) for s in range(20)]
    assert all(len(d.boxes) == film.fixed and torch.equal(d.boxes[0], film.boxes[0]) for d in drawn)
    used = {tuple(row.tolist()) for d in drawn for row in d.boxes}
    assert used == {tuple(row.tolist()) for row in film.boxes}


def test_batches_are_padded_to_the_film_with_most_views(squares, experts, tmp_path):
    films = _compute(squares.take(range(2)), experts, tmp_path, training=True)
    short, long = films[0].draw(), films[1]
    batch = collate([short, long], np.zeros((2, 2)), np.ones((2, 2), bool))
    assert batch.view_mask.sum(1).tolist() == [13, 17] and batch.boxes.shape == (2, 17, 4)
    assert batch.maps[0][0].shape == (2, 17, 17, 32) and (batch.maps[1][0][0, 13:] == 0).all()
    assert torch.equal(batch.summary[1][1], long.summary[1])


def test_the_bar_tells_each_block_of_a_tower(squares, experts, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("medbridge.features.cache.tqdm", partial(tqdm, mininterval=0))
    FeatureCache(tmp_path).films(squares.take(range(2)), experts, DEPTHS, FocalSampler(crop=0.8, overlap=0.1))
    error = capsys.readouterr().err
    for expert in experts:
        assert all(f"{expert.name}: block {i} of {expert.depth}" in error for i in range(1, expert.depth + 1))
        assert not any(block._forward_hooks for block in expert.blocks())
