"""MedBridge: frozen vision-language models, adapted to multi-label chest X-ray diagnosis (arXiv 2505.21698).

For research and education, not for clinical use.
"""

from __future__ import annotations

from medbridge.data import Benchmark, list_benchmarks, load_benchmark
from medbridge.data.images import read_film
from medbridge.errors import MedBridgeError
from medbridge.experts import create_expert, list_experts
from medbridge.focal import FocalSampler
from medbridge.metrics.evaluate import paired_difference
from medbridge.model import AdapterConfig, MedBridge
from medbridge.predict import predict_film
from medbridge.train import TrainConfig, fit

__version__ = "0.1.0"

__all__ = [
    "AdapterConfig", "Benchmark", "FocalSampler", "MedBridge", "MedBridgeError", "TrainConfig", "create_expert", "fit",
    "list_benchmarks", "list_experts", "load_benchmark", "paired_difference", "predict_film",
    "read_film",
]
