r"""Shadow models against distilled sets: LiRA and RMIA.

  python -m experiments.lira --dataset=digits --method=kip --model=krr,mlp \
    --images_per_class=1,10 --num_shadows=64 --num_targets=8 --workdir=out/lira

An attacker who knows the method and the data but not which half of the data was
used: he distils many random halves himself (`dsr.distill.shadows`, or the
method's own function), trains a model on each set, kernel ridge regression or a
network, and compares its outputs with those of the model that he attacks. The
sets attacked are those of further random halves. `--method=all` leaves out the
distillation, so that models see their whole half: the upper end.
`--method=random` distils nothing either: a set is the random images that 'kip'
and 'rkip' would start from.

Attacks: `online` and `offline` LiRA (arXiv:2112.03570), `rmia` and
`rmia_offline` (arXiv:2312.03262), which hold an example against test images and
need fewer shadows, and `threshold`, the bare score without any shadow. Offline
attacks use no shadow that saw the example. The metrics
`<method>_<size>_<attack>_<metric>`, with `<method>_<size>_<network>` for
networks, are means over the sets attacked with 95 % intervals: of Student over
these sets, or of a bootstrap of the examples if there is only one.
`record.json` has each set's own in `extra`; `lira.npz` has all scores, the
truth, and ROC curves: the mean TPR at every FPR. Tables go to `table.md`. Sets
are made by `experiments.half_sets`, some at a time, and kept: what was stopped
goes on.
"""
from dsr.runs import launch
from dsr.studies.audit import lira

if __name__ == '__main__':
  launch.launch(lira.Config, lira.run, jobs=lira.jobs_of)
