"""One thing at a time around a default: which part of MedBridge earns its place, and at what cost. [ours]"""

from medbridge.studies.ablate.run import Ablation, holm, run_ablation
from medbridge.studies.ablate.variants import BASE, FACTORS, Base, Variant, plan
from medbridge.viz.ablation import cost_plot, forest_plot

__all__ = ["BASE", "FACTORS", "Ablation", "Base", "Variant", "cost_plot", "forest_plot", "holm", "plan", "run_ablation"]
