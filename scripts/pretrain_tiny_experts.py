"""Pre-train the tiny experts from scratch, or check the shipped ones.

    python scripts/pretrain_tiny_experts.py all                 # tiny-vit and tiny-resnet, minutes each on two cores
    python scripts/pretrain_tiny_experts.py tiny-vit --resume   # go on from the last checkpoint
    python scripts/pretrain_tiny_experts.py all --evaluate      # make the held-out images again, compare with card.json
    python scripts/pretrain_tiny_experts.py tiny-resnet --out again --cards data/tiny_experts   # train again, compare

Contrastive learning of image and caption as in CLIP (open_clip's ``ClipLoss``), on the procedural general-domain images
of ``procedural_images.py``. Beside it, in pre-training alone, linear heads on the patch maps predict what lies in each
cell: MedBridge reads patch maps, which a loss on the pooled embedding alone leaves poor. The heads are thrown
away; what is shipped is a plain open_clip model.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import hashlib
import json
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer, default_bpe
from procedural_images import (
    BACKGROUNDS,
    CELLS,
    COUNTS,
    DIETS,
    FLAWS,
    MARKS,
    ORIENTATIONS,
    ORIENTED,
    PLACES,
    SCALES,
    SHAPES,
    SIZES,
    TEXTURES,
    WORDS,
    spot_images,
)
from safetensors.torch import save as to_bytes
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from medbridge.experts.clip import OpenClipExpert, load_open_clip_folder

OUT = Path(__file__).resolve().parents[1] / "data" / "tiny_experts"
TEST_SEED = 990_001
TOLERANCE = 0.02  # accuracies differ a little between CPUs: the last bits of sums differ
# a second training parts from the first with the first sum that other threads or another CPU round otherwise
RETRAIN_TOLERANCE = 0.06
FIRST_MERGES = 1000
MEAN, STD = (0.45, 0.45, 0.45), (0.2, 0.2, 0.2)


@dataclass(frozen=True)
class Recipe:
    """How one tiny expert is made."""

    diet: str
    vision: dict
    text: dict
    dense_depths: tuple[int, ...]
    steps: int
    seed: int
    rate: float
    batch: int = 64
    decay: float = 0.05


RECIPES = {
    "tiny-vit": Recipe(
        "scenes",
        {"layers": 6, "width": 128, "head_width": 32, "patch_size": 16, "image_size": 128, "pool_type": "avg"},
        {"context_length": 32, "width": 96, "heads": 3, "layers": 2}, (4, 6), steps=2400, seed=11, rate=1e-3),
    "tiny-resnet": Recipe(
        "textures", {"layers": [2, 2, 2, 2], "width": 16, "head_width": 64, "image_size": 128},
        {"context_length": 32, "width": 64, "heads": 2, "layers": 2}, (4, 5), steps=900, seed=12, rate=2e-3),
    "tiny-resnet-scenes": Recipe(  # the ResNet on the ViT's diet: which of the two, tower or diet, makes an expert good?
        "scenes", {"layers": [2, 2, 2, 2], "width": 16, "head_width": 64, "image_size": 128},
        {"context_length": 32, "width": 64, "heads": 2, "layers": 2}, (4, 5), steps=900, seed=14, rate=2e-3),
}


def write_merges(path: Path) -> None:
    """Write the small vocabulary: CLIP's first merges, and those that the caption words need.

    Bytes are always in it, so every text can be tokenised; words outside the captions fall into pieces.
    """
    lines = gzip.decompress(Path(default_bpe()).read_bytes()).decode("utf-8").split("\n")[1:]
    full = SimpleTokenizer()
    keep = set(range(FIRST_MERGES))
    pieces = [piece for word in sorted(WORDS) for piece in full.bpe(word).split(" ")]
    while pieces:
        piece = pieces.pop()
        rank = full.encoder[piece] - 512  # 256 bytes, and 256 bytes at a word's end, come first
        if rank >= 0:
            keep.add(rank)
            pieces.extend(lines[rank].split())
    text = "\n".join(["#version: 0.2", *(lines[rank] for rank in sorted(keep))])
    path.write_bytes(gzip.compress(text.encode("utf-8"), mtime=0))


def model_config(recipe: Recipe, tokenizer: SimpleTokenizer) -> dict:
    """The ``model_cfg`` of open_clip."""
    text = {**recipe.text, "vocab_size": tokenizer.vocab_size}
    return {"embed_dim": 128, "vision_cfg": dict(recipe.vision), "text_cfg": text}


class DenseHeads(nn.Module):
    """One linear layer a depth: patch token -> labels and marks of the cells that it covers.

    A map of g x g tokens of width d gives ``(B, L, 8, 8)`` and ``(B, 2, 32, 32)`` logits.
    """

    def __init__(self, widths: list[int], grids: list[int], labels: int) -> None:
        super().__init__()
        self.labels = labels
        self.folds = [(CELLS // grid, MARKS // grid) for grid in grids]
        self.norms = nn.ModuleList(nn.GroupNorm(1, width) for width in widths)
        self.layers = nn.ModuleList(
            nn.Conv2d(width, labels * a * a + 2 * b * b, 1) for width, (a, b) in zip(widths, self.folds, strict=True))

    def forward(self, maps: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
        out = []
        for x, norm, layer, (a, b) in zip(maps, self.norms, self.layers, self.folds, strict=True):
            logits = layer(norm(x))
            cells, marks = logits.split((self.labels * a * a, 2 * b * b), dim=1)
            out.append((F.pixel_shuffle(cells, a), F.pixel_shuffle(marks, b)))
        return out


def train(name: str, out: Path, steps: int | None = None, resume: bool = False, save_every: int = 50,
          stop_at: int | None = None) -> Path:
    """Pre-train one expert and write its folder (config, tokenizer, weights).

    Args:
        name: a key of :data:`RECIPES`.
        out: folder that gets the folder ``name``.
        steps: length of the schedule; the recipe's by default.
        resume: go on from ``checkpoint.pt`` in the expert's folder, if there.
        save_every: steps between checkpoints.
        stop_at: leave after this step with a checkpoint and no weights, as an interruption would.

    Returns:
        The expert's folder.
    """
    recipe = RECIPES[name]
    steps = steps or recipe.steps
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    write_merges(folder / "bpe_merges.txt.gz")
    tokenizer = SimpleTokenizer(str(folder / "bpe_merges.txt.gz"), context_length=recipe.text["context_length"])
    config = model_config(recipe, tokenizer)
    preprocess = {"size": 128, "mean": MEAN, "std": STD, "interpolation": "bilinear"}
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}, indent=2) + "\n")

    torch.manual_seed(recipe.seed)
    model = CLIP(**copy.deepcopy(config)).train()
    take = [d - 1 for d in recipe.dense_depths]
    with torch.no_grad():
        blank = torch.zeros(1, 3, 128, 128)
        maps = model.visual.eval().forward_intermediates(blank, indices=take)["image_intermediates"]
    labels = DIETS[recipe.diet](2, 0).cells.shape[1]
    heads = DenseHeads([m.shape[1] for m in maps], [m.shape[2] for m in maps], labels)
    model.train()
    if "patch_size" not in recipe.vision:
        model.visual.to(memory_format=torch.channels_last)
    parameters = [*model.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(
        [{"params": [p for p in parameters if p.dim() > 1], "weight_decay": recipe.decay},
         {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0}], lr=recipe.rate, betas=(0.9, 0.98))
    warm = max(1, min(60, steps // 5))
    first, spent, saved = 0, [0.0, 0.0], folder / "checkpoint.pt"
    if resume and saved.is_file():
        state = torch.load(saved, weights_only=True)
        if state["steps"] != steps:
            raise SystemExit(f"{saved}: made for --steps {state['steps']}, not {steps}; pass that number or delete it")
        model.load_state_dict(state["model"])
        heads.load_state_dict(state["heads"])
        optimizer.load_state_dict(state["optimizer"])
        first, spent = state["step"], state["spent"]

    loss_function, mean, std = ClipLoss(), torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)

    def minutes() -> list[float]:
        """Wall and CPU time since the very start of this training."""
        return [before + (now - began) / 60
                for before, now, began in zip(spent, (time.perf_counter(), time.process_time()), start, strict=True)]

    start = time.perf_counter(), time.process_time()
    bar = tqdm(range(first, steps), initial=first, total=steps, desc=name, mininterval=2)
    for step in bar:
        cosine = 0.5 * (1 + math.cos(math.pi * max(0, step - warm) / (steps - warm)))
        rate = recipe.rate * min((step + 1) / warm, cosine)
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = DIETS[recipe.diet](recipe.batch, (recipe.seed, step))
        result = model.visual.forward_intermediates((batch.images - mean) / std, indices=take)
        image = F.normalize(result["image_features"], dim=-1)
        text = model.encode_text(tokenizer(batch.captions), normalize=True)
        contrast = loss_function(image, text, model.logit_scale.exp())
        dense = torch.stack([
            F.binary_cross_entropy_with_logits(cells, batch.cells, pos_weight=torch.tensor(4.0))
            + F.binary_cross_entropy_with_logits(marks, batch.marks, pos_weight=torch.tensor(8.0))
            for cells, marks in heads(result["image_intermediates"])]).mean()
        optimizer.zero_grad()
        (contrast + 2 * dense).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        bar.set_postfix(contrast=f"{contrast.item():.3f}", dense=f"{dense.item():.3f}", refresh=False)
        done = step + 1
        if done == stop_at or (done % save_every == 0 and done < steps):
            torch.save({"model": model.state_dict(), "heads": heads.state_dict(), "optimizer": optimizer.state_dict(),
                        "step": done, "steps": steps, "spent": minutes()}, saved)
        if done == stop_at:
            return folder

    state = {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in model.state_dict().items()}
    # as bytes, since save_file makes a file that its owner alone may read
    (folder / "open_clip_model.safetensors").write_bytes(to_bytes(state))
    saved.unlink(missing_ok=True)
    wall, cpu = (round(value, 1) for value in minutes())
    card = {"name": name, "diet": recipe.diet, "seed": recipe.seed, "steps": steps, "batch": recipe.batch,
            "images_seen": steps * recipe.batch, "training_minutes": wall, "training_cpu_minutes": cpu}
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    return folder


def prompts(diet: str) -> dict[str, list[list[str]]]:
    """Zero-shot tasks: attribute -> class -> ensemble of prompts."""
    lights = ("dark", "bright")
    if diet == "scenes":
        named = [f"{light} {shape}" for light in lights for shape in SHAPES]
        return {
            "shape": [[f"a {size} {light} {shape}" for size in SIZES[1:] for light in lights] for shape in SHAPES],
            "size": [[f"a {size} {item}" for item in named] for size in SIZES],
            "bright": [[f"a {size} {light} {shape}" for size in SIZES for shape in SHAPES] for light in lights],
            "place": [[f"a {size} {item} in the {place}" for size in SIZES for item in named] for place in PLACES],
            "count": [[f"{'a' if count == 'one' else count} {size} {light} spot{'' if count == 'one' else 's'}"
                       for size in SIZES[:2] for light in lights] for count in COUNTS],
            "background": [[f"a small {item} on a {ground} background" for item in named] for ground in BACKGROUNDS],
        }
    plain = [f"{scale} {texture}" for scale in SCALES for texture in TEXTURES[:-1]]
    return {
        "texture": [[f"{scale} {texture}" if texture != "smooth" else "smooth surface" for scale in SCALES]
                    for texture in TEXTURES],
        "scale": [[f"{scale} {texture}" for texture in TEXTURES[:-1]] for scale in SCALES],
        "orientation": [[f"{scale} {way} {texture}" for scale in SCALES for texture in ORIENTED]
                        for way in ORIENTATIONS],
        "strength": [[f"{how} {texture}" for texture in plain] for how in ("faint", "strong")],
        "flaw": [[f"{texture} and a {light} {flaw} in the {place}" for texture in plain[::4] for light in lights
                  for place in PLACES[::2]] for flaw in FLAWS[:-1]] + [plain],
        "place": [[f"{texture} and a {light} {flaw} in the {place}" for texture in plain[::4] for light in lights
                   for flaw in FLAWS[:-1]] for place in PLACES],
    }


def _features(expert: OpenClipExpert, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings, summaries, and means with maxima of the last two patch maps."""
    rows = []
    for part in images.split(100):
        out = expert.encode_maps((part - expert.mean) / expert.std, [expert.depth - 1, expert.depth])
        patches = [tokens[:, expert.prefix:] for tokens in out.maps.values()]
        pooled = torch.cat([pool for x in patches for pool in (x.mean(1), x.amax(1))], dim=1)
        rows.append((out.embed, out.summary, pooled))
    return tuple(torch.cat(column) for column in zip(*rows, strict=True))


def zero_shot(expert: OpenClipExpert, diet: str, images: int = 2000, seed: int = TEST_SEED) -> dict[str, float]:
    """Accuracy of each task of :func:`prompts` on held-out images of one group or texture each."""
    batch = DIETS[diet](images, seed, single=True)
    embed = _features(expert, batch.images)[0]
    scores = {}
    for task, classes in prompts(diet).items():
        heads = torch.stack([F.normalize(expert.encode_text(texts).mean(0), dim=0) for texts in classes])
        label = batch.attributes[task]
        right = ((embed @ heads.T).argmax(1) == label)[label >= 0]
        scores[task] = round(right.float().mean().item(), 4)
    return scores


def _probe(train_x: Tensor, train_y: Tensor, test_x: Tensor) -> np.ndarray:
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    with threadpool_limits(1):  # thousands of tiny products: threads cost more than they bring
        return model.fit(train_x.numpy(), train_y.numpy()).predict_proba(test_x.numpy())


def probes(experts: list[OpenClipExpert], diet: str, images: int = 2000) -> list[dict[str, float]]:
    """Logistic regression on frozen features: accuracy by attribute (summaries), AUC of the spot test (patch maps)."""
    cut = images * 3 // 4
    batch = DIETS[diet](images, TEST_SEED + 1, single=True)
    pictures, spot = spot_images(images, TEST_SEED + 2)
    results = []
    for expert in experts:
        scores, x = {}, _features(expert, batch.images)[1]
        for task in prompts(diet):
            y = batch.attributes[task]
            train_rows, test_rows = (y[:cut] >= 0).nonzero()[:, 0], (y[cut:] >= 0).nonzero()[:, 0] + cut
            guess = _probe(x[train_rows], y[train_rows], x[test_rows]).argmax(1)
            scores[task] = round(float((guess == y[test_rows].numpy()).mean()), 4)
        x = _features(expert, pictures)[2]
        scores["spot_auc"] = round(float(roc_auc_score(spot[cut:], _probe(x[:cut], spot[:cut], x[cut:])[:, 1])), 4)
        results.append(scores)
    return results


def write_card(folder: Path, recipe: Recipe) -> None:
    """Measure a trained expert and complete its ``card.json``."""
    card = json.loads((folder / "card.json").read_text())
    config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    expert = load_open_clip_folder(folder.name, folder)
    torch.manual_seed(recipe.seed)
    untrained = OpenClipExpert("random", CLIP(**copy.deepcopy(config)), expert.tokenizer)
    trained_probe, untrained_probe = probes([expert, untrained], recipe.diet)
    weights = folder / "open_clip_model.safetensors"
    card |= {
        "data": "procedural general-domain images rendered while training, each seen once; nothing downloaded",
        "architecture": config, "machine": "2 CPU cores",
        "zero_shot": zero_shot(expert, recipe.diet),
        "chance": {task: round(1 / len(classes), 4) for task, classes in prompts(recipe.diet).items()},
        "test": {"images": 2000, "seed": TEST_SEED}, "tolerance": TOLERANCE,
        "linear_probe": trained_probe, "linear_probe_random_weights": untrained_probe,
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(), "bytes": weights.stat().st_size, "licence": "MIT",
    }
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n")


def evaluate(folder: Path, images: int | None = None, cards: Path | None = None) -> bool:
    """Print the zero-shot accuracies of a folder beside those of its card; whether all lie within the tolerance.

    ``cards``: folder of the experts' folders that hold the cards; the expert's own by default. Weights that the card does not
    describe (a second training) are held to :data:`RETRAIN_TOLERANCE`.
    """
    card = json.loads(((cards or folder.parent) / folder.name / "card.json").read_text())
    checksum = hashlib.sha256((folder / "open_clip_model.safetensors").read_bytes()).hexdigest()
    tolerance = card["tolerance"] if checksum == card["sha256"] else RETRAIN_TOLERANCE
    expert = load_open_clip_folder(folder.name, folder)
    scores = zero_shot(expert, card["diet"], images or card["test"]["images"], card["test"]["seed"])
    print(f"{card['name']}: zero-shot accuracy on held-out procedural images")
    print(f"{'task':<12} {'now':>7} {'card':>7} {'chance':>7}")
    for task, score in scores.items():
        print(f"{task:<12} {score:7.3f} {card['zero_shot'][task]:7.3f} {card['chance'][task]:7.3f}")
    within = all(abs(score - card["zero_shot"][task]) <= tolerance for task, score in scores.items())
    print(f"{'within' if within else 'NOT within'} the tolerance of {tolerance}")
    return within


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=[*RECIPES, "all"])
    parser.add_argument("--steps", type=int, help="length of training; the recipe's by default")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the experts' folders")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--evaluate", action="store_true", help="train nothing; compare the weights with their cards")
    parser.add_argument("--cards", type=Path, help="compare with the cards of this folder; of --out by default")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    names = list(RECIPES) if options.name == "all" else [options.name]
    if options.evaluate:
        return 0 if all([evaluate(options.out / name, cards=options.cards) for name in names]) else 1
    for name in names:
        write_card(train(name, options.out, options.steps, options.resume), RECIPES[name])
        evaluate(options.out / name, cards=options.cards)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
