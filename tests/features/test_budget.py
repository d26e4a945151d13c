"""The cost of a run before it starts."""

import open_clip
import pytest
import torch

from medbridge.experts import OpenClipExpert
from medbridge.features.budget import GPUS, LARGE, Rates, cost_of_run, run_cost_table, tower_flops
from medbridge.features.cache import FeatureCache
from medbridge.features.compact import MapBasis, MapFormat
from medbridge.features.encode import view_bytes
from medbridge.features.films import Kept
from medbridge.focal import FocalSampler
from medbridge.model import MedBridge


def test_costs_add_up(experts):
    depths = [[2, 3], [4, 5]]
    one, ten = (cost_of_run(experts, depths, n, 5) for n in (1, 10))
    assert ten.cache == 10 * one.cache == 50 * sum(view_bytes(e, d) for e, d in zip(experts, depths, strict=True))
    assert ten.flops == one.flops == pytest.approx(sum(map(tower_flops, experts)))
    assert one.memory == ten.memory  # a batch is a batch
    assert one.epoch == one.cache and cost_of_run(experts, depths, 10, 5, 2).epoch == ten.cache * 2 / 5
    with pytest.raises(ValueError, match="films=0"):
        cost_of_run(experts, depths, 0, 5)
    with pytest.raises(ValueError, match="drawn=6"):
        cost_of_run(experts, depths, 1, 5, 6)


def test_both_ways_take_as_long_as_their_slowest_part(experts, monkeypatch):
    depths = [[2, 3], [4, 5]]
    cost = cost_of_run(experts, depths, 1000, 9, 5, scored=200)
    for rates, fill, streamed in ((Rates(views=10, films=500, write=1e12), 900, 500), (Rates(views=1e9, films=2), 500, 500),
                                  (Rates(views=1e9, films=1e9, write=cost.cache / 70), 70, 5e-6)):
        assert cost.fill(rates) == pytest.approx(fill) and cost.streamed(rates) == pytest.approx(streamed)
    assert cost.cached(Rates(views=1, read=1e6)) == pytest.approx((5000 + 200) * cost.view / 1e6)
    monkeypatch.setattr(Kept, "left", 50 * cost.view)  # what judges an epoch and is not held in memory is made again
    assert cost.streamed(Rates(views=10, films=1e9)) == pytest.approx(500 + 15)
    table = run_cost_table(cost, Rates(views=10, films=500, write=1e12, read=1e6, room=5e9))
    assert all(name in table for name in GPUS) and "estimated for GPUs at 30%" in table and "does not fit" not in table
    assert "towers 10 views/s, decoding 500 films/s, disk writes 1000000 and reads 1 MB/s, 5 GB free" in table
    rows = {line.split()[0]: line.split() for line in table.splitlines()}
    cached, streamed = rows["cached"], rows["streamed"]
    assert cached == ["cached", f"{cost.cache / 1e9:.3f}", "GB", "900.0", "s", f"{cost.epoch / 1e6:.1f}", "s",
                      *f"{900 + cost.epoch / 1e5:.1f} s".split()]
    assert streamed == ["streamed", "0.000", "GB", "0.0", "s", "515.0", "s", "1.4", "h"]
    assert "measured" not in run_cost_table(cost)


def _shape(name):
    """An expert without numbers: its shapes alone count."""
    with torch.device("meta"):
        return OpenClipExpert(name, open_clip.create_model(name, pretrained=None, device="meta"), list)


def test_the_whole_of_nih_fits_a_colab_disk_with_three_experts():
    clip, siglip = _shape("ViT-B-16"), _shape("ViT-B-16-SigLIP")
    experts = [clip, clip, siglip]  # BiomedCLIP's tower has the shapes of CLIP's ViT-B/16
    with torch.device("meta"):
        bases = [MapBasis(e, [11, 12], MapFormat()) for e in experts]
    gigabytes = {}
    for name, sampler in {"large": LARGE, "default": FocalSampler()}.items():
        pool, fixed = len(sampler.training_boxes(1024, 1024, "any")), len(sampler.inference_boxes(1024, 1024))
        costs = [cost_of_run(experts, [[11, 12]] * 3, films, views, bases=bases)
                 for films, views in ((77_872, pool), (8_652 + 25_596, fixed))]  # train; a tenth for val, and test
        gigabytes[name] = sum(c.cache for c in costs) / 1e9
    assert [view_bytes(e, [11, 12], b) for e, b in zip(experts, bases, strict=True)] == [16_384, 16_384, 17_152]
    assert gigabytes["large"] == pytest.approx(43.5, abs=0.05) and gigabytes["default"] == pytest.approx(71.5, abs=0.05)


def test_the_table_says_what_is_then_on_the_disk(squares, experts, tmp_path):
    model, part = MedBridge(experts, squares.labels, sampler=LARGE), squares.split("train")
    films = FeatureCache(tmp_path, progress=False).of(model, part, training=True)
    cost = cost_of_run(experts, model.depths, len(part), len(films.boxes[0]), films.fixed[0], model.bases)
    written = sum(p.stat().st_size for p in tmp_path.glob("small*/*.safetensors"))
    assert cost.views == 11 and 0 <= written - cost.cache < 0.02 * cost.cache
