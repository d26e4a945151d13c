"""transformers vision towers as experts: CLIP and SigLIP (MedSigLIP, PubMedCLIP), and the towers of LLaVA, Qwen-VL and MedGemma.

The optional extra ``medbridge[hf]``. Of a language model that sees, the vision tower alone is built. Qwen-VL packs the patches of
all views into one sequence (2 x 2 neighbours, in Qwen2.5-VL windows of them); here they get rows and columns again.
"""

import contextlib
import importlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn

from medbridge.errors import ExpertError
from medbridge.experts.base import Expert, TextEncoder
from medbridge.experts.registry import SENTENCE_ENCODERS
from medbridge.experts.weights import SMALL, check_weights, explained, hub_files, transformers_for

INDEX, WHOLE = "model.safetensors.index.json", "model.safetensors"
PAIRED = ("clip", "siglip", "metaclip_2")
"""Model types whose text tower shares the images' space."""


class HfVisionExpert(Expert):
    """A frozen transformers vision ``tower`` (T blocks in one ``ModuleList``) and a ``text`` encoder (``text_dim``).

    ``preprocessing`` is the image processor's; ``project`` maps the pooled output into a shared text space.
    """

    def __init__(
        self, name: str, tower: nn.Module, text: nn.Module, preprocessing: dict[str, Any], size: int,
        project: nn.Module | None = None,
    ) -> None:
        super().__init__(name, preprocessing["image_mean"], preprocessing["image_std"],
                         "bicubic" if preprocessing.get("resample") == 3 else "bilinear")  # Pillow's number
        self.tower, self.text, self.text_dim = tower, text, text.text_dim
        self.project, self.aligned = project, project is not None
        self.layers, self.patch_size = int(tower.config.num_hidden_layers), int(tower.config.patch_size)
        self.merge = int(getattr(tower.config, "spatial_merge_size", 0))
        step = self.patch_size * max(1, self.merge)
        if size < step or size % step:
            raise ExpertError(f"{name}: size={size} is not a multiple of {step} pixels, which its patches ask for")
        self.size, self.side = size, size // self.patch_size
        self.freeze()
        self._order = self._packed_order() if self.merge else None
        self._measure(size, side=self.side)

    def blocks(self) -> list[nn.Module]:
        lists = [m for m in self.tower.modules() if isinstance(m, nn.ModuleList) and len(m) == self.layers]
        return list(lists[0]) if lists else super().blocks()

    def vision_state(self) -> dict[str, Tensor]:
        projection = {} if self.project is None else self.project.state_dict()
        return self.tower.state_dict() | {f"visual_projection.{key}": value for key, value in projection.items()}

    def _forward(self, x: Tensor, depths: Sequence[int] | None) -> tuple[list[Tensor], Any]:
        maps: list[Tensor] = []
        caller = threading.get_ident()  # other threads may run the same tower meanwhile

        def keep(_: nn.Module, __: Any, output: Any) -> None:
            if threading.get_ident() != caller:
                return
            tokens = output[0] if isinstance(output, tuple) else output
            maps.append(tokens.unflatten(0, (len(x), -1))[:, self._order] if self.merge else tokens)

        with contextlib.ExitStack() as hooks:
            for depth, block in enumerate(self.blocks(), 1):
                if depths is None or depth in depths:
                    hooks.enter_context(block.register_forward_hook(keep))
            return maps, self._tower(x)

    def _tower(self, x: Tensor) -> Any:
        config = self.tower.config
        if not self.merge:
            native = int(getattr(config, "image_size", self.size))
            return self.tower(x, interpolate_pos_encoding=True) if self.size != native else self.tower(x)
        half, frames = self.side // self.merge, int(config.temporal_patch_size)
        x = x.view(len(x), 3, half, self.merge, self.patch_size, half, self.merge, self.patch_size)
        x = x.permute(0, 2, 5, 3, 6, 1, 4, 7)  # B, rows, columns, merge, merge, 3, patch, patch
        x = x.unsqueeze(6).expand(*x.shape[:6], frames, *x.shape[6:])  # a still film is `frames` equal frames
        grid = torch.tensor([[1, self.side, self.side]] * len(x), device=x.device)
        return self.tower(x.reshape(-1, x.shape[5:].numel()), grid_thw=grid)

    def _summary(self, out: Any, last: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the tower itself pools, where it does, and the mean of its patches. [ours]"""
        if self.merge:  # the merged tokens are what its language model reads
            merged = out if isinstance(out, Tensor) else out[0] if isinstance(out, tuple) else out.pooler_output
            parts = [merged.unflatten(0, (len(last), -1)).float().mean(dim=1)]
        else:
            parts = [] if getattr(out, "pooler_output", None) is None else [out.pooler_output.float()]
            last = out.last_hidden_state
        parts.append(last[:, self.prefix:].float().mean(dim=1))
        embed = None if self.project is None else F.normalize(self.project(out.pooler_output).float(), dim=-1)
        return torch.cat([F.normalize(part, dim=-1) for part in parts], dim=1), embed

    def _native(self, tokens: Tensor, like: Tensor) -> Tensor:
        return tokens[:, self._order.argsort()].flatten(0, 1) if self.merge else tokens

    def _packed_order(self) -> Tensor:
        """Where in the tower's sequence each patch of the grid stands, ``(P,)``; the first block's input shows windows."""
        half = self.side // self.merge
        index = torch.arange(self.side**2).view(half, self.merge, half, self.merge)
        packed = index.permute(0, 2, 1, 3).flatten().argsort()  # grid position -> place in the packed input
        if not hasattr(self.tower, "fullatt_block_indexes"):
            return packed
        seen: dict[str, Tensor] = {}
        entry = self.tower.patch_embed.register_forward_hook(lambda _, __, out: seen.update(before=out))
        first = self.blocks()[0].register_forward_pre_hook(lambda _, given: seen.update(after=given[0]))
        noise = torch.rand(1, 3, self.size, self.size, generator=torch.Generator().manual_seed(0))
        with entry, first, torch.inference_mode():
            self._tower(noise)
        before, after = seen["before"].flatten(1), seen["after"].flatten(1)
        place = torch.cdist(before.double(), after.double()).argmin(dim=1)
        if not torch.equal(after[place], before) or len(place.unique()) != len(place):
            raise ExpertError(f"{self.name}: the order of this tower's windows is not understood")
        return place[packed]


class SentenceEncoder(TextEncoder):
    """The encoder of a key of :data:`SENTENCE_ENCODERS`; ExpertError without transformers, or where weights are not reachable."""

    def __init__(self, short: str) -> None:
        super().__init__()
        transformers = transformers_for(f"text encoder {short!r}")
        source = str(hub_files(short, SENTENCE_ENCODERS[short], *SMALL, "model.safetensors"))
        self.tokenizer = _auto("Tokenizer", source)
        self.encoder = filled(transformers.AutoModel, source, source, use_safetensors=True).requires_grad_(False)
        self.text_dim = int(self.encoder.config.hidden_size)

    def _pooled(self, texts: list[str], device: torch.device) -> Tensor:
        batch = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt").to(device)
        hidden = self.encoder(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1).to(hidden)
        return (hidden * mask).sum(1) / mask.sum(1)


class PairedText(TextEncoder):
    """The text tower of ``model``, a transformers CLIP or SigLIP, projection included."""

    def __init__(self, model: nn.Module, tokenizer: Any) -> None:
        super().__init__()
        self.encoder, self.tokenizer = model.text_model, tokenizer
        self.projection = getattr(model, "text_projection", None) or nn.Identity()
        # SigLIP was trained with padded texts, and pools the last place
        self.masked = model.config.model_type != "siglip"
        self.options = {"padding": True if self.masked else "max_length", "truncation": True, "return_tensors": "pt",
                        "max_length": int(model.config.text_config.max_position_embeddings)}
        self.text_dim = self(["a film"]).shape[1]

    def _pooled(self, texts: list[str], device: torch.device) -> Tensor:
        batch = self.tokenizer(texts, **self.options).to(device)
        mask = {"attention_mask": batch["attention_mask"]} if self.masked else {}
        return self.projection(self.encoder(input_ids=batch["input_ids"], **mask).pooler_output)


def _auto(kind: str, folder: str | Path) -> Any:
    """The ``Config`` or ``Tokenizer`` that transformers makes of a folder's files."""
    with explained(f"{folder}: transformers cannot read its {kind.lower()}", "; restore its files"):
        return getattr(transformers_for("this expert"), f"Auto{kind}").from_pretrained(str(folder))


def empty_tower(folder: Path) -> nn.Module:
    """The vision tower of a checkpoint in ``folder``, of shapes without numbers: ``config.json`` alone is read."""
    config = _auto("Config", folder)
    vision, transformers = getattr(config, "vision_config", config), transformers_for("this expert")
    with torch.device("meta"):
        with contextlib.suppress(ValueError):
            return transformers.AutoModel.from_config(vision)
        # a few classes are not in transformers' own table
        module = importlib.import_module(type(vision).__module__.replace(".configuration_", ".modeling_"))
        for kind in vars(module).values():
            if isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel) and kind.config_class is type(vision):
                return kind(vision)
    raise ExpertError(f"{folder}: transformers has no vision model for a {vision.model_type!r}")


def tensor_files(tower: nn.Module, held: Mapping[str, str], source: str = "") -> dict[str, tuple[str, str]]:
    """Each of the vision tower's tensors -> its name in a checkpoint, and its file; ``held``: the file of every tensor there."""
    wanted = list(tower.state_dict())
    prefixes = {key.removesuffix(wanted[0]) for key in held if key == wanted[0] or key.endswith(f".{wanted[0]}")}
    if not prefixes:
        raise ExpertError(f"{source}: the checkpoint lacks {wanted[0]!r} of the vision tower; is it another model?")
    prefix = max(sorted(prefixes), key=lambda p: sum(p + key in held for key in wanted))
    # all that stands there, under whatever names: releases of transformers differ
    return {key.removeprefix(prefix): (key, file) for key, file in held.items() if key.startswith(prefix)}


def filled(kind: Any, source: str | None, what: str, **options: Any) -> nn.Module:
    """A transformers model of class ``kind`` by its own loader, which knows the names of older releases too, in float32.

    ExpertError where the checkpoint lacks a tensor, which transformers would leave random, or has one of another shape.
    """
    logging = transformers_for("this expert").utils.logging
    with explained(f"{what}: does not fit its config.json", "; restore its files"), contextlib.ExitStack() as afterwards:
        afterwards.callback(logging.enable_progress_bar)
        logging.disable_progress_bar()  # a bar for a second's work would stand between our own
        logging.set_verbosity_error()  # what does not fit is an ExpertError
        model, report = kind.from_pretrained(source, dtype=torch.float32, output_loading_info=True, **options)
    # a pooler that a checkpoint was saved without is not read either
    if absent := sorted(key for key in report["missing_keys"] if not key.startswith("pooler.")):
        raise ExpertError(f"{what}: the checkpoint lacks {absent[0]!r}, and {len(absent) - 1} more; is it another model?")
    return model.eval()


def _preprocessing(folder: Path, repository: str) -> dict[str, Any]:
    """``image_mean``, ``image_std`` and ``resample`` of the image processor."""
    for path in (folder / "preprocessor_config.json", folder / "processor_config.json"):
        config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        config = config.get("image_processor", config)
        if "image_mean" in config and "image_std" in config:
            return config
    raise ExpertError(f"{folder}: no preprocessor_config.json with image_mean and image_std; put the one of {repository} there")


def _load_tower(tower: nn.Module, files: Callable[..., Path]) -> nn.Module:
    """Read the vision tower's tensors, and no others, from shards: 1.7 GB out of 16 GB; ExpertError for missing or other ones."""

    def opened(file: str) -> Any:
        path = files(file) / file
        if not path.is_file():
            raise ExpertError(f"{path}: missing; put this file of the checkpoint there")
        check_weights(path)
        with explained(f"{path}: not a readable weights file", "; download it again"):
            return safe_open(path, framework="pt")

    folder = files(*SMALL)
    if (folder / INDEX).is_file():
        held = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
    else:
        with opened(WHOLE) as file:
            held = dict.fromkeys(file.keys(), WHOLE)
    places, state = tensor_files(tower, held, str(folder)), {}
    for shard in sorted({shard for _, shard in places.values()}):
        with opened(shard) as file:
            state |= {key: file.get_tensor(name) for key, (name, where) in places.items() if where == shard}
    return filled(type(tower), None, str(folder), config=tower.config, state_dict=state)


def load_hf(
    called: str, repository: str, text: nn.Module | None, size: int | None = None, folder: Path | None = None
) -> HfVisionExpert:
    """Build ``hf:ORG/REPO``, or the vision tower of ``hf:ORG/REPO+TEXT`` alone, whose space ``text`` lends; pickles are refused.

    ``size`` is by default the model's own, 448 for towers that take any. ``folder`` mirrors the repository: None asks the hub.
    """
    transformers = transformers_for(f"expert {called!r}")
    if folder is not None and not folder.is_dir():
        raise ExpertError(f"{folder}: expert {called!r} needs the folder that mirrors {repository}, not a file")

    def files(*patterns: str) -> Path:
        return folder or hub_files(called, repository, *patterns)

    config = _auto("Config", files(*SMALL))
    if text is None and config.model_type not in PAIRED:
        raise ExpertError(f"{called}: a {config.model_type!r} has no text tower that shares its images' space; "
                          f"write hf:{repository}+TEXT to borrow one")
    vision = getattr(config, "vision_config", config)
    if vision.model_type == "siglip2_vision_model":
        raise ExpertError(
            f"{called}: SigLIP 2 in its NaFlex form takes patches of any shape; take one of a fixed size, such as siglip2-vitb16")
    preprocessing = _preprocessing(files(*SMALL), repository)
    size = size or int(getattr(vision, "image_size", 0) or 448)
    if text is None:
        source = str(files(*SMALL, "*.safetensors"))
        model = filled(transformers.AutoModel, source, source, use_safetensors=True)  # a pickle is never opened
        text = PairedText(model, _auto("Tokenizer", source))
        projection = getattr(model, "visual_projection", None) or nn.Identity()
        return HfVisionExpert(called, model.vision_model, text, preprocessing, size, projection)
    tower = _load_tower(empty_tower(files(*SMALL)), files)
    return HfVisionExpert(called, tower, text, preprocessing, size)
