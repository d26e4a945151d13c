r"""DenseNet-121 from timm (Huang et al., "Densely connected convolutional networks", CVPR 2017), trained whole: what CheXNet
(Rajpurkar et al., 2017) made the usual choice for chest films: x_l = H_l([x_0, x_1, ..., x_{l-1}])."""

import timm
import torch
from timm.data import resolve_data_config
from torch import Tensor, nn

from medbridge.baselines.base import TrainedBaseline, prevalence_bias
from medbridge.baselines.inputs import ViewInputs
from medbridge.baselines.towers import film_mean
from medbridge.experts import Expert
from medbridge.experts.weights import asking, find_weights, load_state
from medbridge.features.films import FrozenFilms

_WEIGHTS = "densenet121.ra_in1k"


class DenseScores(nn.Module):
    """Views ``(B, N, R, R)`` and real ``(B, N)`` -> logits ``(B, C)``: mean of the views' pooled features, then a linear layer.
    ExpertError: the ImageNet weights of ``pretrained`` are neither in ``MEDBRIDGE_WEIGHTS`` nor reachable."""

    def __init__(self, labels: int, pretrained: bool) -> None:
        super().__init__()
        files = [f"{_WEIGHTS}.safetensors", f"{_WEIGHTS}.pth"]
        path = find_weights(files) if pretrained else None
        with asking("densenet121", files, "timm's hub"):
            self.net = timm.create_model(_WEIGHTS, pretrained=pretrained and path is None, num_classes=0)
        if path is not None:
            self.net.load_state_dict({k: v for k, v in load_state(path).items() if not k.startswith("classifier.")})
        # ten views of sixteen films do not fit small machines otherwise; the price is a second forward pass
        self.net.set_grad_checkpointing(True)
        config = resolve_data_config(model=self.net)
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(config[name]).view(1, 3, 1, 1), persistent=False)
        self.classifier = nn.Linear(self.net.num_features, labels)

    def forward(self, views: Tensor, real: Tensor) -> Tensor:
        x = (views[real][:, None] - self.mean) / self.std
        return self.classifier(film_mean(self.net(x), real))


class DenseNet(TrainedBaseline):
    """DenseNet-121, once and without the experts, on views of ``size`` pixels. [ours] It starts from random weights, because
    ImageNet's have to be fetched; CheXNet starts from those: ask for them where you can, by ``pretrained``."""

    name = "DenseNet-121"
    grid = ({"rate": 1e-3}, {"rate": 3e-4}, {"rate": 1e-4})
    need = ""
    biased = False  # its classifier has one
    options = (("size", 224), ("pretrained", False))

    def usable(self, expert: Expert) -> bool:
        return expert is self.experts[0]  # it is trained once, however many experts there are

    def inputs(self, films: FrozenFilms, k: int) -> ViewInputs:
        return ViewInputs(films, self.size, self.views, self.progress)

    def build(self, k: int, train: FrozenFilms) -> DenseScores:
        module = DenseScores(len(self.labels), self.pretrained)
        module.classifier.bias = prevalence_bias(train)
        return module
