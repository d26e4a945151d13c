"""Fixtures: small open_clip experts with random weights (fast), and a small benchmark of synthetic squares."""

import io
import os
import shutil
from contextlib import redirect_stdout
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from samples import small_expert

from medbridge import cli
from medbridge.data import Benchmark
from medbridge.experts import create_expert
from medbridge.features.cache import FeatureCache
from medbridge.focal import FocalSampler
from medbridge.studies.adapt import adapt

os.environ["MEDBRIDGE_PROGRESS"] = "off"  # a test is no student's try


def _shared(expert):
    """Lend an expert to all tests, and see at the end that each gave it back as it was, to the last bit."""
    before = expert.fingerprint(), expert.text_fingerprint()
    yield expert
    assert (expert.fingerprint(), expert.text_fingerprint()) == before, f"a test has changed the shared expert {expert.name}"


@pytest.fixture(scope="session")
def vit():
    """A ViT expert: 32 px, 4 x 4 patches, 3 blocks, width 32."""
    yield from _shared(small_expert("small-vit", 3))


@pytest.fixture(scope="session")
def resnet():
    """A ModifiedResNet expert: 64 px, four stages."""
    vision = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16}
    yield from _shared(small_expert("small-resnet", 2, vision=vision))


@pytest.fixture(scope="session")
def experts(vit, resnet):
    """K = 2 experts with other sizes, depths and widths."""
    return [vit, resnet]


def _named(patch, experts):
    known = {e.name: e for e in experts}
    for module in ("medbridge.cli.options", "medbridge.model", "medbridge.adapter"):
        patch.setattr(f"{module}.create_expert", lambda name, *_, **__: known[name])


@pytest.fixture
def named(monkeypatch, experts):
    """``create_expert`` finds the small experts by name."""
    _named(monkeypatch, experts)


@pytest.fixture(scope="session")
def squares(tmp_path_factory):
    """Synthetic films 96 x 128: 'bright' has a bright square, 'wide' a wide bar; patients with two films each."""
    root = tmp_path_factory.mktemp("squares")
    rng = np.random.default_rng(0)
    rows = []
    for i in range(60):
        film = rng.uniform(0.2, 0.4, (96, 128))
        bright, wide = rng.integers(2, size=2)
        y, x = rng.integers(8, 60, 2)
        if bright:
            film[y : y + 24, x : x + 24] += 0.5
        if wide:
            film[80:90] += 0.5
        Image.fromarray((film.clip(0, 1) * 255).astype(np.uint8)).save(root / f"{i:03d}.png")
        split = "train" if i < 32 else "val" if i < 44 else "test"
        rows.append({"image": f"{i:03d}.png", "patient_id": f"p{i // 2}", "split": split, "bright": float(bright),
                     "wide": float(wide)})
    table = pd.DataFrame(rows)
    table.loc[3, "bright"] = np.nan
    return Benchmark("squares (synthetic)", root, ("bright", "wide"), table, synthetic=True)


@pytest.fixture(scope="session")
def squares_folder(tmp_path_factory, squares):
    """The squares as ``--benchmark folder`` reads them."""
    root = tmp_path_factory.mktemp("own")
    shutil.copytree(squares.root, root / "images")
    squares.table.to_csv(root / "labels.csv", index=False)
    return root


@pytest.fixture(scope="session")
def adapted(tmp_path_factory, squares_folder, experts):
    """`medbridge adapt` once: the command, the folder of its run, what it measured, what it printed."""
    out, results, printed = tmp_path_factory.mktemp("run"), [], io.StringIO()
    command = ["adapt", "--benchmark", "folder", "--root", squares_folder, "--expert", "small-vit", "--expert", "small-resnet",
               "--out", out, "--cache", out / "cache", "--epochs", "2", "--queries", "4", "--width", "32", "--crop", "0.6",
               "--overlap", "0", "--extra", "1"]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed):
        _named(patch, experts)
        patch.setattr("medbridge.cli.adapt.adapt", lambda *a, **k: results.append(adapt(*a, **k)) or results[0])
        assert cli.main([str(word) for word in command]) == 0
    return SimpleNamespace(command=command, out=out, result=results[0], printed=printed.getvalue())


@pytest.fixture(scope="session")
def two_sites(tmp_path_factory, squares):
    """Two folder benchmarks of the squares, 'north' and 'south'. They share two findings, of which one has two names."""
    base = tmp_path_factory.mktemp("sites")
    names = {"north": {"bright": "Effusion", "wide": "Mass"}, "south": {"wide": "Lung Mass", "bright": "Pleural Effusion"}}
    for site, labels in names.items():
        root = base / site
        (root / "images").mkdir(parents=True)
        rows = squares.table.copy()
        rows["image"] = [f"{site}-{name}" for name in rows["image"]]
        for path, name in zip(squares.paths(), rows["image"], strict=True):
            shutil.copy2(path, root / "images" / name)
        if site == "south":
            rows.insert(3, "Hernia", [float(i % 2) for i in range(len(rows))])
        rows = rows[[c for c in rows if c not in labels] + list(labels)]
        rows.rename(columns=labels).to_csv(root / "labels.csv", index=False)
    return base


@pytest.fixture(scope="session")
def tiny():
    """A shipped expert: a tower that has learned something, where those of random ones say nearly the same of every film."""
    yield from _shared(create_expert("tiny-vit"))


@pytest.fixture(scope="session")
def films(squares, tiny, tmp_path_factory):
    """Features of the squares by split, whole films alone."""
    cache = FeatureCache(tmp_path_factory.mktemp("cache"), progress=False)
    return {s: cache.films(squares.split(s), [tiny], [[]], FocalSampler(local=False), s == "train")
            for s in ("train", "val", "test")}
