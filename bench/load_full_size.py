"""One load at full size per family of experts: a file as its owners publish it with random numbers in it, and its peak memory.

    python bench/load_full_size.py [--family clip dinov2 ...] [--place FOLDER]

Names and shapes come from tests/published.yaml. The file is written into FOLDER (by default a temporary one), loaded in a
process of its own by ``weights=`` (as ``--weights`` does) and by ``MEDBRIDGE_WEIGHTS``, run on one blank view, and deleted.
Nothing is downloaded: texts get small vocabularies and random encoders of the right size. The largest, medsiglip, needs 4 GB of
disk and 8 GB of memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from medbridge import create_expert
from medbridge.experts import SENTENCE_ENCODERS
from medbridge.experts.clip import BIOMEDBERT
from medbridge.experts.registry import ExpertName
from medbridge.experts.weights import hub_folder

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from published import PUBLISHED, tensors

FAMILIES = {  # family -> expert, entry of published.yaml, precision of the published file
    "clip": ("clip-vitb16", "clip", torch.float16),
    "clip-l": ("open_clip:ViT-L-14/openai", "clip", torch.float16),
    "siglip": ("siglip-vitb16", "clip", torch.float32),
    "pubmedclip": ("pubmedclip", "clip", torch.float16),
    "unimed": ("unimed-clip-vitb16", "clip", torch.float32),
    "dinov2": ("dinov2-vits14+minilm", "timm", torch.float32),
    "dinov3": ("timm:vit_small_patch16_dinov3_qkvb.lvd1689m+minilm", "timm", torch.float32),
    "meddinov3": ("meddinov3+pubmedbert", "timm", torch.float32),
    "lvm-med": ("lvm-med-vitb+pubmedbert", "timm", torch.float32),
    "llava": ("llava15-vision+minilm", "hf", torch.float16),
    "qwen": ("qwen25vl-vision+minilm", "hf", torch.bfloat16),
    "medgemma": ("medgemma-vision+minilm", "hf", torch.bfloat16),
    "medsiglip": ("medsiglip", "hf", torch.float32),
}
SENTENCE_LAYERS = {"minilm": (6, 384), "pubmedbert": (12, 768)}


def numbers(state: dict[str, Tensor], precision: torch.dtype) -> dict[str, Tensor]:
    """Random ones in the shapes of ``state``."""
    generator = torch.Generator().manual_seed(0)
    return {key: torch.empty(value.shape, dtype=precision).normal_(0, 0.02, generator=generator)
            for key, value in tqdm(state.items(), "random numbers", unit="tensor", leave=False)}


def vocabulary(folder: Path) -> Path:
    """BERT's configuration and a small vocabulary, for what takes its tokenizer from a repository."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "film"]))
    transformers.BertConfig().save_pretrained(folder)
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def write(family: str, root: Path) -> Path:
    """The family's files in the weights folder ``root``; returns what ``--weights`` names."""
    name, kind, precision = FAMILIES[family]
    parts, entry = ExpertName.of(name), PUBLISHED[kind][name]
    for repository in (BIOMEDBERT, "timm/ViT-B-16-SigLIP"):
        vocabulary(root / hub_folder(repository))
    if parts.text is not None:
        layers, width = SENTENCE_LAYERS[parts.text]
        encoder = vocabulary(root / hub_folder(SENTENCE_ENCODERS[parts.text]))
        transformers.BertModel(transformers.BertConfig(
            num_hidden_layers=layers, hidden_size=width, intermediate_size=4 * width)).save_pretrained(encoder)
    if kind != "hf":
        state = numbers(tensors(entry), precision)
        path = root / next((file for file in parts.own_files if file == parts.alias.file), parts.files[0])
        if family == "meddinov3":
            path, state = root / "meddinov3+pubmedbert.pth", {f"backbone.{key}": value for key, value in state.items()}
        save_file(state, path) if path.suffix == ".safetensors" else torch.save({"teacher": state}, path)
        return path
    folder = vocabulary(root / hub_folder(parts.repository))
    (folder / "config.json").write_text(json.dumps(entry["config"]))
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 3}))
    if parts.text is None:  # a text tower is read too
        with torch.device("meta"):
            whole = transformers.AutoModel.from_config(transformers.AutoConfig.from_pretrained(folder))
        state = whole.state_dict()
    else:
        state = tensors(entry, entry["prefixes"][0])
    keys, index = list(state), {}
    for number, start in enumerate(range(0, len(keys), 200), 1):
        file = f"model-{number:05}.safetensors"
        save_file(numbers({key: state[key] for key in keys[start : start + 200]}, precision), folder / file)
        index |= dict.fromkeys(keys[start : start + 200], file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return folder


def load(name: str, weights: str | None) -> None:
    """Load, encode one view, print what it took as JSON; alone in its process, whose peak is then the expert's."""
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    expert = create_expert(name, weights=weights)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    summary = expert.encode_maps(expert.preprocess(torch.zeros(1, expert.size, expert.size)), [expert.depth]).summary
    print(json.dumps({"seconds": seconds, "before": before / 1e6, "peak": peak / 1e6, "depth": expert.depth,
                      "fingerprint": expert.fingerprint(), "finite": bool(summary.isfinite().all())}))


def measure(family: str, place: str | None) -> str:
    """A row of the table."""
    name = FAMILIES[family][0]
    with tempfile.TemporaryDirectory(dir=place) as folder:
        # in a process of its own: what this one took once would count as the peak of every later child
        weights = Path(subprocess.run([sys.executable, __file__, "--write", family, "--place", folder], check=True, text=True,
                                      stdout=subprocess.PIPE).stdout.splitlines()[-1])
        size = sum(p.stat().st_size for p in ([weights] if weights.is_file() else weights.glob("*.safetensors"))) / 1e9
        told = []
        for given in (str(weights), ""):  # by --weights, and by the folder alone
            out = subprocess.run([sys.executable, __file__, "--load", name, "--weights", given], check=True, text=True,
                                 stdout=subprocess.PIPE, env=os.environ | {"MEDBRIDGE_WEIGHTS": folder, "HF_HUB_OFFLINE": "1"})
            told.append(json.loads(out.stdout.splitlines()[-1]))
    first, second = told
    if first["fingerprint"] != second["fingerprint"] or not (first["finite"] and second["finite"]):
        raise SystemExit(f"{name}: the two ways of loading disagree: {told}")
    precision, peak = str(FAMILIES[family][2]).removeprefix("torch."), max(first["peak"], second["peak"])
    return (f"| {family} | `{name}` | {precision} | {size:.2f} GB | {first['seconds']:.0f} and {second['seconds']:.0f} s | "
            f"{peak:.2f} GB | {first['before']:.2f} GB |")


def main() -> None:
    """Measure the families that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--family", nargs="+", choices=FAMILIES, default=list(FAMILIES), help="default: all")
    parser.add_argument("--place", help="where the files are written, and deleted again; default: the temporary folder")
    parser.add_argument("--write", help=argparse.SUPPRESS)
    parser.add_argument("--load", help=argparse.SUPPRESS)
    parser.add_argument("--weights", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.write:
        return print(write(args.write, Path(args.place)))
    if args.load:
        return load(args.load, args.weights or None)
    print("| family | expert | file in | size | seconds | peak memory | of it before the load |\n|---|---|---|---|---|---|---|")
    for family in args.family:
        print(measure(family, args.place), flush=True)
    return None


if __name__ == "__main__":
    main()
