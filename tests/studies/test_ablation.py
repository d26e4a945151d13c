"""The ablation: a variant differs in one thing, the table is what the kept scores say, and finished work is not done again."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from medbridge.adapter import load_adapter
from medbridge.baselines.method import MedBridgeMethod
from medbridge.cli import main
from medbridge.errors import AdapterError, BenchmarkError, ExpertError
from medbridge.features.cache import FeatureCache
from medbridge.focal import FocalSampler
from medbridge.metrics.evaluate import auc, paired_difference
from medbridge.model import AdapterConfig
from medbridge.predict import predict
from medbridge.studies.ablation import DEFAULT, FACTORS, plan, run_ablation
from medbridge.studies.cells import MethodSettings
from medbridge.studies.tables import holm
from medbridge.train import Network, TrainConfig

ADAPTER = AdapterConfig(queries=2, query_layers=1, width=16, heads=2)


@pytest.fixture(scope="module")
def base(experts):
    return MethodSettings(experts, ADAPTER, FocalSampler(0.9, 0.0, 1), TrainConfig(epochs=1))


@pytest.fixture(scope="module")
def settings(squares, base, tmp_path_factory):
    return {"benchmark": squares, "base": base, "only": ["views", "kind", "experts", "probe"], "seeds": (0, 1), "n_boot": 50,
            "cache": FeatureCache(tmp_path_factory.mktemp("cache"), progress=False)}


@pytest.fixture(scope="module")
def ablation(settings, tmp_path_factory):
    out = tmp_path_factory.mktemp("ablation")
    return out, run_ablation(out=out, **settings)


def _cell(out, experts, seed, local=True):
    """The folder of the MedBridge of these experts."""
    for path in out.glob(f"cells/MedBridge-seed{seed}-*/cell.json"):
        cell = json.loads(path.read_text())
        sampler = cell["sampler"]
        if [name for name, _ in cell["experts"]] == experts and (sampler["local"], sampler["overlap"]) == (local, 0):
            return path.parent
    raise AssertionError(experts)


def _windows(sampler):
    return len(sampler.inference_boxes(1000, 1000))


def test_a_variant_differs_from_the_default_in_its_factor_alone(experts):
    base = MethodSettings(experts)
    default, *variants = plan(base)
    assert default.factor == DEFAULT and {v.factor for v in variants} == set(FACTORS)
    assert len({(v.factor, v.name) for v in variants}) == len(variants)
    parts = {"views": "sampler", "crop": "sampler", "loss": "config", "experts": "experts"}
    for v in variants:
        names = ("experts", "adapter", "sampler", "config")
        changed = {name for name in names if getattr(v.settings, name) != getattr(default.settings, name)}
        assert changed == ({parts.get(v.factor, "adapter")} if v.factor != "probe" else set()), v.name
        assert v.method == ("linear probe" if v.factor == "probe" else "MedBridge")
        assert v.settings.views == ("whole" if v.name == "linear probe, whole film" else "all")
        if v.factor == "crop":  # another size of window, as many of them
            assert _windows(v.settings.sampler) == _windows(base.sampler) == 10 and v.settings.sampler.crop != 0.5
        if v.factor == "views":
            assert v.settings.sampler.crop == 0.5
            assert _windows(v.settings.sampler) == {"whole film only (N=1)": 1, "N=5": 5, "N=17": 17}[v.name]
    names = {factor: [v.name for v in variants if v.factor == factor] for factor in FACTORS}
    assert names["pool"] == ["mean", "lse", "attention"] and names["loss"] == ["asymmetric"]
    assert names["router"] == ["router=image", "router=uniform", "top_k=1"] and names["queries"] == ["Q=1", "Q=4", "Q=16"]
    assert names["experts"] == ["small-vit alone", "small-resnet alone"] and names["layers"] == ["T2=1", "T2=3"]


def test_the_plan_goes_around_any_default(experts):
    other = MethodSettings(experts, AdapterConfig(pool="mean", router="uniform", queries=4, top_k=1), FocalSampler(local=False),
                 TrainConfig(loss="asymmetric"))
    names = {(v.factor, v.name) for v in plan(other)}
    assert {("pool", "max"), ("loss", "bce"), ("router", "router=class"), ("queries", "Q=8")} <= names
    assert [name for factor, name in names if factor == "views"] == ["with local views"]
    assert not {factor for factor, _ in names} & {"crop"} and ("router", "top_k=2") not in names
    assert "depths" not in {v.factor for v in plan(MethodSettings(experts, AdapterConfig(query_layers=1)))}
    single = MethodSettings(experts[:1])
    assert not {v.factor for v in plan(single)} & {"router", "experts"}
    two = {v.name: v for v in plan(MethodSettings(experts, AdapterConfig(top_k=2)), ["experts"])}
    assert two["small-vit alone"].settings.adapter.top_k is None  # one expert is left
    with pytest.raises(ValueError, match="unknown factor colour; known: views, crop"):
        plan(single, ["colour"])


def test_the_table_is_what_the_kept_scores_say(ablation, squares):
    out, result = ablation
    table = result.table.set_index("variant")
    parts = {s: squares.split(s) for s in ("val", "test")}

    def runs(experts, part):
        cells = (_cell(out, experts, seed) for seed in (0, 1))
        saved = [np.load(path) for folder in cells for path in folder.glob("scores-*.npz")]
        return [s["scores"] for s in saved if s["images"].tolist() == part.image_ids()]

    for split, part in parts.items():
        y, mask = part.targets()
        alone, default = runs(["small-vit"], part), runs(["small-vit", "small-resnet"], part)
        row = table.loc["small-vit alone"]
        each = [np.mean([auc(y, p, mask).mean() for p in ps]) for ps in (alone, default)]
        assert [row[f"{split}_auc"], row[f"{split}_diff"]] == pytest.approx([each[0], each[0] - each[1]])
        d = paired_difference(y, alone, default, mask, part.table["patient_id"], 50)
        assert [row[f"{split}_lo"], row[f"{split}_hi"], row[f"{split}_p"]] == pytest.approx([d.lo, d.hi, d.p_value])
        spread = [auc(y, a, mask).mean() - auc(y, b, mask).mean() for a, b in zip(alone, default, strict=True)]
        assert row[f"{split}_seed_sd"] == pytest.approx(np.std(spread, ddof=1))
        assert table[f"{split}_holm"].tolist() == pytest.approx(holm(table[f"{split}_p"]).tolist(), nan_ok=True)
    default = table.loc["default"]
    assert result.table["variant"][0] == "default" and default[["val_diff", "test_lo", "val_holm"]].isna().all()
    assert default["views"] == 5 and table.loc["whole film only (N=1)", "views"] == 1
    assert table.loc["linear probe, whole film", ["seeds", "views"]].tolist() == [1, 1] and default["seeds"] == 2
    assert 0 < table.loc["small-vit alone", "parameters"] < default["parameters"] and (table["seconds"] > 0).all()


def test_the_files_say_the_same(ablation):
    out, result = ablation
    pd.testing.assert_frame_equal(pd.read_csv(out / "ablation.csv"), result.table)
    text = (out / "ablation.md").read_text()
    assert "squares (synthetic): 32 training films, 16 test films of 8 patients" in text and "2 seeds; at most 1 epoch;" in text
    assert "kind copy was not run: small-resnet has no pre-norm transformer blocks" in text and "Choose on validation" in text
    assert list(result.left_out) == ["kind copy", "kind lora"]
    assert not [*out.rglob("*.part*"), *out.rglob("checkpoint.pt")]


def test_what_is_finished_is_not_done_again(ablation, settings, monkeypatch):
    out, result = ablation
    shutil.rmtree(_cell(out, ["small-vit"], 1))
    trained = []
    real = MedBridgeMethod.fit

    def fit(self, *films):
        trained.append((len(self.model.experts), self.config.seed))
        return real(self, *films)

    monkeypatch.setattr(MedBridgeMethod, "fit", fit)
    again = run_ablation(out=out, **settings)
    assert trained == [(1, 1)]
    pd.testing.assert_frame_equal(again.table.drop(columns="seconds"), result.table.drop(columns="seconds"))
    one = run_ablation(out=out, **settings | {"only": ["probe"], "seeds": (0,)})
    assert trained == [(1, 1)] and one.table["factor"].tolist() == [DEFAULT, "probe", "probe"]
    assert one.table["val_seed_sd"].isna().all()
    run_ablation(out=out, **settings)  # the files tell of all of it again


def test_other_settings_and_damage_are_refused(ablation, settings, base):
    out, _ = ablation
    with pytest.raises(BenchmarkError, match=r"settings\.json: belongs to a run with other .* \(differs in: adapter\)"):
        run_ablation(out=out, **settings | {"base": MethodSettings(base.experts, AdapterConfig(), base.sampler, base.config)})
    with pytest.raises(BenchmarkError, match=r"differs in: films"):
        run_ablation(out=out, **settings | {"benchmark": settings["benchmark"].subset(0.5, "train")})
    for seeds in ((), (1, 1)):
        with pytest.raises(ValueError, match="give one or more, each once"):
            run_ablation(out=out, **settings | {"seeds": seeds})
    path = next(_cell(out, ["small-vit", "small-resnet"], 0, local=False).glob("scores-*.npz"))
    kept = path.read_bytes()
    path.write_bytes(kept[:100])
    with pytest.raises(AdapterError, match=r"scores-\w+\.npz: damaged .* delete the file"):
        run_ablation(out=out, **settings)
    path.write_bytes(kept)


def test_a_default_that_cannot_be_built_is_an_error(settings, base, tmp_path):
    impossible = MethodSettings(base.experts, AdapterConfig(query_kind="copy", maps="full"), base.sampler, base.config)
    with pytest.raises(ExpertError, match="small-resnet has no pre-norm"):
        run_ablation(out=tmp_path / "none", **settings | {"base": impossible})
    assert not (tmp_path / "none").exists()


def test_the_command(squares, tmp_path, capsys):
    part = squares.take([*range(8), *range(32, 38), *range(44, 52)])
    root = tmp_path / "films"
    (root / "images").mkdir(parents=True)
    for path, name in zip(part.paths(), part.image_ids(), strict=True):
        (root / "images" / name).write_bytes(path.read_bytes())
    part.table.to_csv(root / "labels.csv", index=False)
    arguments = ["ablate", "--benchmark", "folder", "--root", str(root), "--expert", "tiny-vit", "--only", "loss",
                 "--epochs", "1", "--seeds", "1", "--label-fraction", "0.5", "--no-local", "--pool", "mean", "--out",
                 str(tmp_path / "out"), "--cache", str(tmp_path / "cache"), "--workers", "0"]
    assert main(arguments) == 0
    told, error = capsys.readouterr()
    assert "one class only" in error
    assert "| loss | asymmetric | 1 |" in told and "4 training films, 8 test films" in told and "cost.png are in" in told
    for name in ("ablation.png", "cost.png"):
        assert (tmp_path / "out" / name).read_bytes()[:4] == b"\x89PNG"
    kept = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert kept["adapter"]["pool"] == "mean" and kept["train"]["epochs"] == 1 and not kept["sampler"]["local"]
    for option, value, message in (("--seeds", "0", "write at least 1"), ("--only", "colour", "invalid choice: 'colour'")):
        with pytest.raises(SystemExit):
            main([*arguments, option, value])
        assert f"argument {option}" in (error := capsys.readouterr().err) and message in error


def test_validation_films_are_scored_by_what_did_not_learn_from_them(settings, base, tmp_path):
    """Members learn from train and val; what a study says of val must come from the members of the other folds."""
    fitted = replace(base, adapter=replace(ADAPTER, members=3))
    run_ablation(**settings | {"out": tmp_path, "base": fitted, "only": ["probe"], "seeds": (0,)})
    folder, squares, cache = _cell(tmp_path, ["small-vit", "small-resnet"], 0), settings["benchmark"], settings["cache"]
    model = load_adapter(folder, base.experts)
    train, val = cache.of(model, squares.split("train"), training=True), cache.of(model, squares.split("val"))
    kept = [np.load(path) for path in folder.glob("scores-*.npz")]
    scores = next(k["scores"] for k in kept if k["images"].tolist() == squares.split("val").image_ids())
    held = expit(Network(model, train, val, base.config).held_logits()[len(train):])
    np.testing.assert_allclose(scores, held, atol=1e-6)
    assert np.abs(scores - predict(model, val, progress=False).probabilities).max() > 1e-4
