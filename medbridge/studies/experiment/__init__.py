"""A whole grid of training runs from one YAML file: ``medbridge experiment FILE.yaml``. [ours]

:mod:`medbridge.studies.experiment_file` reads and checks the file, ``run`` trains and scores what is missing, ``tables`` turns
scores into results.
"""

from medbridge.studies.experiment.run import Results, run_experiment
from medbridge.studies.experiment_file import Experiment, Task, read_experiment

__all__ = ["Experiment", "Results", "Task", "read_experiment", "run_experiment"]
