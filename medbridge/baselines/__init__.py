"""What MedBridge is compared with, all behind ``fit(train, val)`` and ``predict_proba(films)`` on the same frozen features."""

from medbridge.baselines.linear_probe import LinearProbe
from medbridge.baselines.zero_shot import ZeroShot

__all__ = ["LinearProbe", "ZeroShot"]
