"""Which experts have a short name, and what is known of them without loading them.

Related systems enter as frozen experts, each by the part that it shares with the method:

- MedSigLIP, PubMedCLIP, BiomedCLIP and UniMed-CLIP are image-text models and bring their own prompts' space;
- of MedGemma, LLaVA and Qwen-VL the vision tower enters, without the language model, with a borrowed text space;
- DINOv2, DINOv3, MedDINOv3 and LVM-Med see without text, and borrow a text space too.

Hub ids and licences come from the models' cards, their repositories or the metadata that timm and open_clip carry; notes say
where loading could not be tried with the real file. A licence is the weights' owner's to state: read it there, not here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["ALIASES", "ExpertAlias", "list_experts", "split_size"]


@dataclass(frozen=True)
class ExpertAlias:
    """A short name, what it stands for, its licence, and one line on it.

    Attributes:
        target: the written-out name.
        licence: of the weights.
        note: what it is.
        fetchable: whether ``medbridge experts fetch`` can get it; otherwise the note says where the weights come from.
        file: name under which the owners give the checkpoint, which is then found in the weights folder as it was downloaded.
        hub: ``ORG/REPO/FILE`` of a checkpoint that is one file on the hub, where the target's own library does not know it.
        shape: input resolution in pixels, blocks and width as its card or its published configuration states them, where no
            library knows them before its files are here.
    """

    target: str
    licence: str
    note: str
    fetchable: bool = True
    file: str = ""
    hub: str = ""
    shape: tuple[int, int, int] | None = None

    @property
    def own_file(self) -> bool:
        """Whether the target names the architecture alone, so that no weights but the alias's own will do."""
        return bool(self.hub) or not self.fetchable


ALIASES: dict[str, ExpertAlias] = {
    "tiny-vit": ExpertAlias("tiny:tiny-vit", "MIT", "shipped ViT, pre-trained on synthetic captioned scenes"),
    "tiny-resnet": ExpertAlias("tiny:tiny-resnet", "MIT", "shipped ResNet, pre-trained on synthetic captioned textures"),
    "tiny-resnet-scenes": ExpertAlias("tiny:tiny-resnet-scenes", "MIT", "shipped ResNet, pre-trained on the ViT's scenes"),
    "clip-vitb32": ExpertAlias("open_clip:ViT-B-32/openai", "MIT", "the original CLIP ViT-B/32"),
    "clip-vitb16": ExpertAlias("open_clip:ViT-B-16/openai", "MIT", "the original CLIP ViT-B/16"),
    "openclip-vitb32": ExpertAlias(
        "open_clip:ViT-B-32/laion2b_s34b_b79k", "MIT",
        "OpenCLIP ViT-B/32 on LAION-2B; licence as LAION's other cards state it, its own was not read"),
    "openclip-convnext": ExpertAlias(
        "open_clip:convnext_base_w/laion2b_s13b_b82k_augreg", "MIT",
        "OpenCLIP ConvNeXt-Base on LAION-2B; licence as LAION's other cards state it, its own was not read"),
    "metaclip-vitb16": ExpertAlias(
        "open_clip:ViT-B-16-quickgelu/metaclip_400m", "CC BY-NC 4.0", "MetaCLIP ViT-B/16, 400M pairs"),
    "eva02-vitb16": ExpertAlias("open_clip:EVA02-B-16/merged2b_s8b_b131k", "MIT", "EVA-CLIP ViT-B/16"),
    "coca-vitb32": ExpertAlias("open_clip:coca_ViT-B-32/laion2b_s13b_b90k", "MIT", "CoCa ViT-B/32 on LAION-2B"),
    "siglip-vitb16": ExpertAlias("open_clip:ViT-B-16-SigLIP/webli", "Apache-2.0", "SigLIP ViT-B/16"),
    "siglip2-vitb16": ExpertAlias("open_clip:ViT-B-16-SigLIP2/webli", "Apache-2.0", "SigLIP 2 ViT-B/16"),
    "biomedclip": ExpertAlias(
        "open_clip:hf-hub:microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224", "MIT",
        "CLIP pre-trained on PubMed Central figures", shape=(224, 12, 768)),
    "pubmedclip": ExpertAlias(
        "open_clip:ViT-B-32/openai", "MIT",
        "CLIP ViT-B/32 fine-tuned on ROCO figures and captions; the authors' checkpoint, in OpenAI's layout",
        file="PubMedCLIP_ViT32.pth", hub="sarahESL/PubMedCLIP/PubMedCLIP_ViT32.pth"),
    "unimed-clip-vitb16": ExpertAlias(
        "unimed:ViT-B-16-quickgelu", "CC BY-NC 4.0",
        "CLIP over six medical modalities with a BiomedBERT text tower; checkpoint by hand from "
        "github.com/mbzuai-oryx/UniMed-CLIP, whose licence this is", fetchable=False, file="unimed_clip_vit_b16.pt"),
    "unimed-clip-vitl14": ExpertAlias(
        "unimed:ViT-L-14-336-quickgelu", "CC BY-NC 4.0",
        "the larger UniMed-CLIP, at 336 px, with the base text tower; checkpoint by hand from "
        "github.com/mbzuai-oryx/UniMed-CLIP, whose licence this is", fetchable=False,
        file="unimed_clip_vit_l14_base_text_encoder.pt"),
    "medsiglip": ExpertAlias(
        "hf:google/medsiglip-448", "HAI-DEF terms of use", "SigLIP for medical images at 448 px; gated: accept the terms first",
        shape=(448, 27, 1152)),
    "medgemma-vision+minilm": ExpertAlias(
        "hf:google/medgemma-4b-it+minilm", "HAI-DEF terms of use",
        "the vision tower of MedGemma 4B at 896 px, without its language model; gated: accept the terms first",
        shape=(896, 27, 1152)),
    "llava15-vision+minilm": ExpertAlias(
        "hf:llava-hf/llava-1.5-7b-hf+minilm", "Llama 2 community licence",
        "the vision tower of LLaVA 1.5 (a CLIP ViT-L/14 at 336 px), without its language model; licence of the whole checkpoint",
        shape=(336, 24, 1024)),
    "qwen25vl-vision+minilm": ExpertAlias(
        "hf:Qwen/Qwen2.5-VL-7B-Instruct+minilm", "Apache-2.0",
        "the vision tower of Qwen2.5-VL 7B, without its language model; takes any size, here 448 px", shape=(448, 32, 1280)),
    "dinov2-vits14+minilm": ExpertAlias(
        "timm:vit_small_patch14_dinov2.lvd142m+minilm@224", "Apache-2.0",
        "DINOv2 ViT-S/14 at 224 px, for a CPU's sake, with the text space of MiniLM"),
    "dinov2-vitb14+biolord": ExpertAlias(
        "timm:vit_base_patch14_dinov2.lvd142m+biolord", "Apache-2.0",
        "DINOv2 ViT-B/14 at 518 px with the text space of BioLORD, for which the licences of UMLS and SNOMED CT hold"),
    "dinov3-vits16+minilm": ExpertAlias(
        "timm:vit_small_patch16_dinov3.lvd1689m+minilm", "DINOv3 License", "DINOv3 ViT-S/16 with the text space of MiniLM"),
    "meddinov3+pubmedbert": ExpertAlias(
        "timm:vit_base_patch16_dinov3+pubmedbert", "Apache-2.0",
        "DINOv3 ViT-B/16 further trained on CT slices; loads from the layout of its repository's code, not tried with the "
        "real file", hub="ricklisz123/MedDINOv3-ViTB-16-CT-3M/model.pth"),
    "lvm-med-resnet50+pubmedbert": ExpertAlias(
        "timm:resnet50+pubmedbert", "CC BY-NC-ND 2.0",
        "ResNet-50, self-supervised on 1.3 million medical images; checkpoint by hand from github.com/duyhominhnguyen/LVM-Med, "
        "whose README states this licence and whose licence file CC BY-NC-SA 4.0; not tried with the real file",
        fetchable=False, file="lvmmed_resnet.torch"),
    "lvm-med-vitb+pubmedbert": ExpertAlias(
        "timm:samvit_base_patch16+pubmedbert@512", "CC BY-NC-ND 2.0",
        "LVM-Med's other tower, a ViT-B of SAM's form, at 512 px for a CPU's sake; licence, source and caution as for its "
        "ResNet-50: checkpoint by hand", fetchable=False, file="lvmmed_vit.pth"),
}

_SIZE = re.compile(r"(.+)@(\d+)")


def list_experts() -> list[str]:
    """Names of the aliases that :func:`medbridge.create_expert` takes, shipped ones first."""
    return list(ALIASES)


def split_size(name: str) -> tuple[str, int | None]:
    """``NAME@448`` -> ``("NAME", 448)``; a name without a size -> ``(name, None)``."""
    found = _SIZE.fullmatch(name)
    return (found[1], int(found[2])) if found else (name, None)
