"""PhantomCXR: a procedural chest film benchmark, deterministic by seed, always called synthetic. [ours]"""

from medbridge.data.phantom.benchmark import LABELS, load_phantom

__all__ = ["LABELS", "load_phantom"]
