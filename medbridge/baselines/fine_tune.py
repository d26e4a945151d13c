"""Full fine-tuning of the last blocks (as the partial fine-tuning of He et al., "Masked autoencoders", CVPR 2022), from the
zero-shot head (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022)."""

from medbridge.baselines.towers import FilmScores, Tower, TowerBaseline
from medbridge.features.films import FrozenFilms

# modules and parameters after the last block: open_clip's ViT, ModifiedResNet, timm trunks, and open_clip's head on them
_TAIL = ("ln_post", "proj", "attn_pool", "attnpool", "norm", "fc_norm", "head")


class FineTune(TowerBaseline):
    """The last ``blocks`` transformer blocks, or stages of a convolutional tower, are trained with all after them and a head."""

    name = "fine-tuning"
    grid = ({"rate": 1e-4}, {"rate": 1e-3}, {"rate": 1e-5})
    options = (("blocks", 1),)

    def build(self, k: int, train: FrozenFilms) -> FilmScores:
        tower = Tower(self.experts[k])
        for name, p in tower.net.named_parameters():
            p.requires_grad_(name.removeprefix("trunk.").split(".")[0] in _TAIL)
        for block in tower.blocks[-self.blocks :]:
            block.requires_grad_(True)
        return self.scored(k, tower, tower.dim)
