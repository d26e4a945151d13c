"""One thing at a time around a default: which part of MedBridge earns its place, and at what cost. [ours]"""

from medbridge.ablate.figures import cost_plot, forest_plot
from medbridge.ablate.run import Ablation, holm, run_ablation
from medbridge.ablate.variants import BASE, FACTORS, Base, Variant, plan

__all__ = ["BASE", "FACTORS", "Ablation", "Base", "Variant", "cost_plot", "forest_plot", "holm", "plan", "run_ablation"]
