"""MedBridge: frozen vision-language models, adapted to multi-label chest X-ray diagnosis (arXiv 2505.21698).

For research and education, not for clinical use.
"""

import medbridge.support.stopped  # noqa: F401  before the imports that take seconds
from medbridge.adapter import load_adapter, save_adapter
from medbridge.baselines import create_method, list_methods
from medbridge.data import Benchmark, list_benchmarks, load_benchmark
from medbridge.data.images import read_film
from medbridge.errors import MedBridgeError
from medbridge.experts import create_expert, list_experts
from medbridge.features.cache import FeatureCache
from medbridge.focal import FocalSampler
from medbridge.metrics.evaluate import evaluate, paired_difference
from medbridge.model import AdapterConfig, MedBridge
from medbridge.predict import predict, predict_film
from medbridge.train import TrainConfig, fit

__version__ = "0.1.0"

__all__ = [
    "AdapterConfig", "Benchmark", "FeatureCache", "FocalSampler", "MedBridge", "MedBridgeError", "TrainConfig", "create_expert",
    "create_method", "evaluate", "fit", "list_benchmarks", "list_experts", "list_methods", "load_adapter", "load_benchmark",
    "paired_difference", "predict", "predict_film", "read_film", "save_adapter",
]
