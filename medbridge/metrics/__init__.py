"""From scores to numbers: AUC with intervals, paired comparison, thresholds, calibration, subgroups."""
