"""transformers vision towers as experts: CLIP and SigLIP (MedSigLIP, PubMedCLIP), and the towers of LLaVA, Qwen-VL and MedGemma.

The optional extra ``medbridge[hf]``. A CLIP or SigLIP brings its own text tower. Of a language model that sees, the vision
tower alone is built, and its text space is borrowed. Hooks on the tower's blocks take the maps. Qwen-VL packs the patches of all
views into one sequence, in its own order (2 x 2 neighbours, in Qwen2.5-VL windows of them); here they get rows and columns again.
"""

import contextlib
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medbridge.errors import ExpertError
from medbridge.experts.base import Expert
from medbridge.experts.text import PairedText
from medbridge.experts.weights import Repository, explained, transformers_for

PAIRED = ("clip", "siglip", "metaclip_2")
"""Model types whose text tower shares the images' space."""


class HfVisionExpert(Expert):
    """A frozen transformers vision ``tower`` (T blocks in one ``ModuleList``) and a ``text`` encoder (``text_dim``).

    ``preprocessing`` is the image processor's; ``project`` maps the pooled output into the text space, where the two share one.
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

        def keep(_: nn.Module, __: Any, output: Any) -> None:
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


def _tower(name: str, vision: Any) -> nn.Module:
    """The vision model of a configuration, with random weights; a few classes are not in transformers' own table."""
    from transformers import AutoModel, PreTrainedModel

    with contextlib.suppress(ValueError):
        return AutoModel.from_config(vision)
    module = importlib.import_module(type(vision).__module__.replace(".configuration_", ".modeling_"))
    for kind in vars(module).values():
        if isinstance(kind, type) and issubclass(kind, PreTrainedModel) and kind.config_class is type(vision):
            return kind(vision)
    raise ExpertError(f"{name}: transformers has no vision model for a {vision.model_type!r}")


def empty_tower(folder: Path) -> nn.Module:
    """The vision tower of a checkpoint in ``folder``, of shapes without numbers: ``config.json`` alone is read."""
    transformers = transformers_for("this expert")
    with explained(f"{folder / 'config.json'}: not a configuration that transformers knows"):
        config = transformers.AutoConfig.from_pretrained(str(folder))
    with torch.device("meta"):
        return _tower(folder.name, getattr(config, "vision_config", config))


def load_hf(
    name: str, repository: str, text: Callable[[], nn.Module] | None, size: int | None = None, weights: Path | None = None
) -> HfVisionExpert:
    """Build ``hf:ORG/REPO``, or the vision tower of ``hf:ORG/REPO+TEXT`` alone; ``text`` builds the encoder that lends its space.

    ``size`` is by default the model's own, and 448 for towers that take any. ``weights`` is the folder that mirrors the
    repository; default ``MEDBRIDGE_WEIGHTS``, then the hub.
    """
    transformers = transformers_for(f"expert {name!r}")
    files = Repository(name, repository, weights)
    config = files.ask(transformers.AutoConfig.from_pretrained, files.source)
    if text is None and config.model_type not in PAIRED:
        raise ExpertError(f"{name}: a {config.model_type!r} has no text tower that shares its images' space; "
                          f"write hf:{repository}+TEXT to borrow one")
    vision = getattr(config, "vision_config", config)
    if vision.model_type == "siglip2_vision_model":
        raise ExpertError(
            f"{name}: SigLIP 2 in its NaFlex form takes patches of any shape; take one of a fixed size, such as siglip2-vitb16")
    preprocessing = files.preprocessing()
    size = size or int(getattr(vision, "image_size", 0) or 448)
    if text is None:
        model = files.ask(transformers.AutoModel.from_pretrained, files.source, use_safetensors=True, dtype=torch.float32).eval()
        projection = getattr(model, "visual_projection", None) or nn.Identity()
        paired = PairedText(model, files.ask(transformers.AutoTokenizer.from_pretrained, files.source))
        return HfVisionExpert(name, model.vision_model, paired, preprocessing, size, projection)
    tower = _tower(name, vision).float()  # a checkpoint's own half precision is for a GPU
    files.load_tower(tower)
    return HfVisionExpert(name, tower, text(), preprocessing, size)
