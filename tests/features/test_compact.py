"""Compact maps: standardised components in a byte, fitted without labels, kept by the cache and the adapter."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from medbridge.data.tasks import label_budget
from medbridge.features.batch import Batch, collate
from medbridge.features.cache import FeatureCache
from medbridge.features.compact import MapBasis, MapFormat, as_numbers
from medbridge.features.encode import encode_views, film_views, map_part, view_bytes
from medbridge.focal import FocalSampler
from medbridge.model import AdapterConfig, MedBridge, map_reader

SAMPLER = FocalSampler(crop=0.6, overlap=0.0, extra=2)


def _tokens(expert, depths, n=400, seed=0):
    """Tokens in which two common components drown the others, as in real towers."""
    g = torch.Generator().manual_seed(seed)
    found = {}
    for d in depths:
        width = expert.widths[d - 1]
        loud = 30 * torch.randn(n, 2, generator=g) @ torch.randn(2, width, generator=g)
        found[d] = loud + torch.randn(n, width, generator=g) + 5
    return found, torch.randn(n, expert.image_dim, generator=g) * 3 + 1


def test_components_are_standardised_and_a_common_one_drowns_none(vit):
    basis, (tokens, summary) = MapBasis(vit, [2, 3], MapFormat(components=8, bits=16)), _tokens(vit, [2, 3])
    basis.fit(tokens, summary)
    u = basis(tokens[3][None, :17], 3)[0]
    assert u.shape == (17, 32) and basis.widths[2] == 8  # more are stored than are read
    whole = (tokens[3] @ basis.matrix_3 + basis.shift_3)[:, :8]
    np.testing.assert_allclose(whole.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(whole.std(0), 1, atol=0.01)
    np.testing.assert_allclose(np.corrcoef(whole.T.numpy()), np.eye(8), atol=1e-3)
    np.testing.assert_allclose(basis.standardise(summary).std(0), 1, atol=1e-3)
    plain = MapBasis(vit, [3], MapFormat(components=8, bits=16, whiten=False))
    plain.fit(tokens, summary)
    spread = (tokens[3] @ plain.matrix_3 + plain.shift_3)[:, :8].std(0)
    assert spread[0] == pytest.approx(1, abs=0.01) and spread[-1] < 0.5 and (spread.diff() <= 1e-4).all()


def test_a_byte_holds_what_sixteen_bits_hold(vit):
    tokens, summary = _tokens(vit, [3])
    byte, half = (MapBasis(vit, [3], MapFormat(bits=bits)) for bits in (8, 16))
    for basis in (byte, half):
        basis.fit(tokens, summary)
    maps = tokens[3][: 17 * 4].unflatten(0, (4, 17))
    small, large = byte(maps, 3), half(maps, 3)
    assert small.dtype == torch.int8 and large.dtype == torch.float16
    inside = large.float().abs() < 3.9  # what lies beyond is cut
    assert inside.float().mean() > 0.99
    torch.testing.assert_close(as_numbers(small)[inside], as_numbers(large)[inside], rtol=0, atol=1 / 60)


def test_fine_maps_are_averaged_and_prefix_tokens_kept(vit):
    basis = MapBasis(vit, [3], MapFormat(patches=4))
    assert vit.grids[2] == (4, 4) and basis.grids[2] == (2, 2) and vit.prefix == 1
    tokens = torch.arange(17.0).view(1, 17, 1).expand(1, 17, 32)
    pooled = basis.pool(tokens, 3)[0, :, 0].tolist()
    assert pooled == [0, 3.5, 5.5, 11.5, 13.5]
    assert [MapFormat(patches=64).side(*grid) for grid in ((8, 8), (14, 14), (16, 16), (24, 24), (7, 5))] == [1, 2, 2, 3, 1]


def test_a_view_of_a_vit_b_takes_less_than_twenty_kilobytes():
    class ViTB:
        depth, prefix, image_dim, text_dim, aligned = 12, 1, 1536, 512, False
        widths, grids = (768,) * 12, ((14, 14),) * 12

    maps = view_bytes(ViTB(), [11, 12], MapBasis(ViTB(), [11, 12], MapFormat())) - 2 * ViTB.image_dim
    assert maps == 2 * 50 * 128 < 20_000
    assert (view_bytes(ViTB(), [11, 12]) - 2 * ViTB.image_dim) / maps > 30


def test_the_same_films_give_the_same_basis_and_another_basis_another_address(vit):
    one, again, other = (MapBasis(vit, [3], MapFormat()) for _ in range(3))
    one.fit(*_tokens(vit, [3]))
    again.fit(*_tokens(vit, [3]))
    other.fit(*_tokens(vit, [3], seed=1))
    assert one.digest() == again.digest() != other.digest()
    assert len({map_part(3), map_part(3, one), map_part(3, other), map_part(2, one)}) == 4


def test_the_cache_keeps_them_and_fills_nothing_twice(experts, squares, tmp_path, monkeypatch):
    cache, reader = FeatureCache(tmp_path, progress=False), map_reader(experts, AdapterConfig(), SAMPLER)
    train, test = squares.split("train"), squares.split("test")
    films = cache.of(reader, train, training=True)
    kept = list(tmp_path.rglob("bases/*.safetensors"))
    assert len(kept) == 2 and all(basis.fitted for basis in reader.bases)
    for k, expert in enumerate(experts):
        views = films.boxes[0].shape[0]
        assert [m.dtype for m in films[0].maps[k]] == [torch.int8] * 2
        assert [len(m) for m in films[0].maps[k]] == [views] * 2
        cut = film_views(lambda: train.read(0), films.boxes[0], [expert.view_kind])[expert.view_kind]
        fresh = encode_views(expert, cut, reader.depths[k], basis=reader.bases[k])
        for d, m in zip(reader.depths[k], films[0].maps[k], strict=True):
            assert (fresh.maps[d].int() - m.int()).abs().max() <= 1  # another batch may round the other way
    # a second reader takes the basis from the cache; of views that are there for training, inference reads the first
    monkeypatch.setattr(MapBasis, "forward", lambda *_: pytest.fail("nothing is left to encode"))
    second = map_reader(experts, AdapterConfig(), SAMPLER)
    again = cache.of(second, train, training=True)
    fewer = cache.of(second, train)
    assert [b.digest() for b in second.bases] == [b.digest() for b in reader.bases]
    assert torch.equal(again[3].maps[0][0], films[3].maps[0][0])
    assert len(fewer[3].boxes) == fewer.fixed[3] < len(films[3].boxes)
    assert torch.equal(fewer[3].maps[1][1], films[3].maps[1][1][: fewer.fixed[3]])
    # a model of fewer components reads the first ones of what is there
    small = MedBridge(experts, squares.labels, AdapterConfig(components=8), SAMPLER)
    same = cache.of(small, train, training=True)
    assert same.parts == films.parts
    assert {layer.k_map.in_features for b in small.branches for layer in b.encoder.layers} == {8}
    wide = collate([same[i].draw() for i in range(4)])
    first = Batch([[m[..., :8] for m in maps] for maps in wide.maps], wide.summary, wide.boxes, wide.view_mask)
    torch.testing.assert_close(small.eval()(wide).logits, small(first).logits)
    monkeypatch.undo()
    # films of another benchmark are read in the basis of the source
    other = cache.of(reader, test)
    assert len(other[0].maps) == 2 and other.parts == films.parts


def test_a_label_budget_does_not_change_the_basis(experts, squares, tmp_path):
    cache, digests = FeatureCache(tmp_path, progress=False), []
    for fraction in (1.0, 0.5):
        reader = map_reader(experts, AdapterConfig(), SAMPLER)
        cache.of(reader, label_budget(squares, fraction).split("train"), training=True)
        digests.append([basis.digest() for basis in reader.bases])
    assert digests[0] == digests[1]


def test_bad_formats():
    for options in ({"components": 0}, {"patches": 0}, {"bits": 4}):
        with pytest.raises(ValueError, match="must be at least 1, bits"):
            MapFormat(**options)
    with pytest.raises(ValueError, match="maps='raw' is unknown"):
        AdapterConfig(maps="raw")
    assert AdapterConfig(maps="full").map_format is None
    assert replace(AdapterConfig(), bits=16).map_format == MapFormat(bits=16)
