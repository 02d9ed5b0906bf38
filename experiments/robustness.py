r"""Accuracy of models under attack, and on corrupted images.

  python -m experiments.robustness --dataset=digits --set=out/audit/kip_10 \
    --model=mlp --fit=out/audit/kip_10/mlp --workdir=out/robustness

Attacks see the whole model (square: its outputs alone) and move pixels within
an epsilon ball and [0, 1]. An image that is wrong as it stands counts as
broken. Networks of the same set attack each other too (`transfer`). Accuracies
have intervals over models and images; an attack that fails is no proof of
robustness, as a stronger one may not: `worst_<norm>` is what withstands all.

Writes `robustness.npz` (right or wrong by model and image) and `record.json`.
"""
from dsr.runs import launch
from dsr.studies.audit import robustness

if __name__ == '__main__':
  launch.launch(robustness.Config, robustness.run)
