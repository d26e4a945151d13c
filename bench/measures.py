"""What single known tricks do to the speed here; ``bench/speed.py --only options`` runs them."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from rig import FIVE, Turns, clip, films, one_epoch, vit
from torch import Tensor, nn

from medbridge import MedBridge
from medbridge.baselines.coop import LearnedContext, label_texts
from medbridge.data import label_names
from medbridge.features.batch import collate
from medbridge.features.cache import FeatureCache
from medbridge.train import Network, TrainConfig

PHANTOM = label_names()["phantom"]


def options(args: argparse.Namespace) -> Iterator[str]:
    """What each known trick does to the tower's speed here: time without / with, so that above 1 is faster."""
    expert = vit()
    x = expert.preprocess(torch.rand(20, 224, 224))

    def run(kind: torch.dtype = torch.float32, data: Tensor = x) -> Callable[[], None]:
        def work() -> None:
            with torch.autocast(x.device.type, kind, enabled=kind != torch.float32):
                expert.encode_maps(data, [9, 11])

        return work

    def by(works: dict[str, Callable]) -> str:
        wall, cpu = Turns(works, args.repeats).ratio(*works)
        return f"wall {wall:.2f}, processor {cpu:.2f}"

    yield "bf16 autocast of the tower | " + by({"fp32": run(), "bf16": run(torch.bfloat16)})
    yield "channels_last input | " + by({"plain": run(), "last": run(data=x.contiguous(memory_format=torch.channels_last))})

    def attention(fused: bool) -> Callable[[], None]:
        def work() -> None:
            for block in expert.trunk.blocks:
                block.attn.fused_attn = fused
            run()()

        return work

    yield "scaled_dot_product_attention (what timm does by itself) | " + by({"plain": attention(False), "sdpa": attention(True)})
    compiled = vit()
    for block in compiled.trunk.blocks:
        block.compile()
    begin = time.perf_counter()
    compiled.encode_maps(x, [9, 11])
    took = time.perf_counter() - begin
    yield f"torch.compile of each block (compiling took {took:.0f} s) | " + by(
        {"eager": run(), "compiled": lambda: compiled.encode_maps(x, [9, 11])})
    with tempfile.TemporaryDirectory() as place:
        benchmark = films(Path(place) / "films", args.films)
        model = MedBridge([expert], benchmark.labels, sampler=FIVE)
        cached = FeatureCache(Path(place) / "cache", progress=False).of(model, benchmark, training=True)
        config = TrainConfig(batch_size=6)

        def epoch(fused: bool) -> Callable[[], None]:
            plain = torch.optim.AdamW

            def work() -> None:
                torch.optim.AdamW = partial(plain, fused=fused)
                one_epoch(Network(model, cached, cached, config), config)
                torch.optim.AdamW = plain

            return work

        yield "fused AdamW, an epoch on cached maps | " + by({"plain": epoch(False), "fused": epoch(True)})

    with tempfile.TemporaryDirectory() as place:
        yield draft(args, Path(place))
    with tempfile.TemporaryDirectory() as place:
        yield prompts(args, Path(place))
    yield padding(args)


def draft(args: argparse.Namespace, place: Path) -> str:
    """JPEG draft decoding where the whole view of a film of 2048 x 2048 is all that is wanted."""
    path = films(place, 1, 2048, "jpg").paths()[0]

    def whole(small: bool) -> np.ndarray:
        with Image.open(path) as image:
            if small:
                image.draft("L", (448, 448))  # the decoder gives 512 x 512
            return np.asarray(image.resize((224, 224), Image.Resampling.BILINEAR), dtype=np.float32)

    wall, cpu = Turns({"plain": lambda: whole(False), "draft": lambda: whole(True)}, 4 * args.repeats).ratio("plain", "draft")
    moved = np.abs(whole(False) - whole(True)).max()
    return (f"JPEG draft decoding, whole view of 2048 x 2048 alone (moves pixels by up to {moved:.0f} of 255) | wall {wall:.2f}, "
            f"processor {cpu:.2f}")


def _step(scores: Callable[[], Tensor], y: Tensor) -> Callable[[], None]:
    return lambda: F.binary_cross_entropy_with_logits(scores(), y).backward()


def prompts(args: argparse.Namespace, place: Path) -> str:
    """A training step at the size of CLIP ViT-B/16: CoOp's gradient goes through the text tower, MedBridge's does not."""
    expert = clip("ViT-B-16")
    labels = [*label_names()["nih"]]
    model, benchmark = MedBridge([expert], labels, sampler=FIVE), films(place / "films", 2)
    cached = FeatureCache(place / "cache", progress=False).of(model, benchmark)
    batch = collate([cached[i % 2] for i in range(16)])
    coop, seen = LearnedContext(expert, labels, 100.0, 4), F.normalize(torch.randn(16, expert.text_dim), dim=-1)
    y = torch.randint(2, (16, len(labels))).float()
    t = Turns({"coop": _step(lambda: coop(seen), y), "medbridge": _step(lambda: model(batch).logits, y)}, args.repeats)
    wall, cpu = t.ratio("coop", "medbridge")
    return (f"MedBridge's step on cached maps in place of CoOp's through the text tower, at the size of CLIP ViT-B/16 (random "
            f"weights; {len(labels)} labels, 16 films of 5 views; {t.seconds('coop'):.1f} and {t.seconds('medbridge'):.2f} s) | "
            f"wall {wall:.1f}, processor {cpu:.1f}")


def padding(args: argparse.Namespace) -> str:
    """CoOp's step through the text tower's full length, as published and as the package does it, and cut behind the labels."""
    expert = clip("ViT-B-32")
    full, model, tokenizer = LearnedContext(expert, PHANTOM, 14.0, 4), expert.model, expert.tokenizer
    # a causal tower does not look behind [EOS], whose id is the largest
    longest = int(tokenizer(label_texts(PHANTOM)).argmax(dim=1).max()) + 1 + 4
    model.positional_embedding = nn.Parameter(model.positional_embedding[:longest].detach().clone())
    model.attn_mask, expert.tokenizer = model.attn_mask[:longest, :longest].clone(), lambda texts: tokenizer(texts)[:, :longest]
    short = LearnedContext(expert, PHANTOM, 14.0, 4)
    short.load_state_dict(full.state_dict())
    seen, y = F.normalize(torch.randn(16, expert.text_dim), dim=-1), torch.randint(2, (16, len(PHANTOM))).float()
    moved = float((full(seen) - short(seen)).abs().max())
    t = Turns({"full": _step(lambda: full(seen), y), "short": _step(lambda: short(seen), y)}, args.repeats)
    wall, cpu = t.ratio("full", "short")
    return (f"CoOp's step without padding, {longest} positions for 77 (not used; random weights; logits move by {moved:.0e}; "
            f"{t.seconds('full'):.2f} and {t.seconds('short'):.2f} s) | wall {wall:.1f}, processor {cpu:.1f}")
