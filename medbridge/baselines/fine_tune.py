"""Full fine-tuning of the last blocks (as the partial fine-tuning of He et al., "Masked autoencoders", CVPR 2022), from the
zero-shot head (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022).

Every parameter of the last blocks, of what follows them and of the head is trained; the rest stays frozen.
"""

from medbridge.baselines.base import Option
from medbridge.baselines.towers import FilmScores, Tower, TowerBaseline
from medbridge.features.cache import CachedFilms


class FineTune(TowerBaseline):
    """Fine-tuning of the last ``blocks`` transformer blocks, or stages of a convolutional tower."""

    name = "fine-tuning"
    grid = ({"rate": 1e-4}, {"rate": 1e-3}, {"rate": 1e-5})
    options = (Option("blocks", 1),)

    def build(self, k: int, train: CachedFilms) -> FilmScores:
        tower = Tower(self.experts[k])
        for part in (*tower.blocks[-self.blocks :], *tower.tail()):
            part.requires_grad_(True)
        return FilmScores(tower, self.head(k, tower))
