r"""Trains the models of an audit on a set, and keeps them.

  python -m experiments.fit --dataset=digits --set=out/audit/kip_10 \
    --model=mlp --num_networks=3 --workdir=out/audit/kip_10/mlp

The set is what `experiments.distill` left in a folder, one's own
(`sets.from_file`), or without `--set` all training images. Networks are
trained one after another and kept as they are finished, so a run that was
stopped goes on with the next; `--dp_epsilon` trains them by DP-SGD
(arXiv:1607.00133). Kernel ridge regression, `--model=krr`, is fitted anew
wherever it is needed: here it is only tested.

Writes `networks.npz` (test outputs and parameters) and `record.json`.
"""
from dsr.runs import launch
from dsr.studies.audit import fit

if __name__ == '__main__':
  launch.launch(fit.Config, fit.run)
