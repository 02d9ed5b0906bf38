r"""Distils some of the random halves that an attack by shadow models needs.

  python -m experiments.half_sets --method=kip --images_per_class=10 \
    --num_shadows=64 --num_targets=8 --first=0 --last=7 --workdir=out/half_sets

`experiments.lira` makes these commands, eight halves each, so that they can be
shared out to many processes or machines. A half is drawn from the seed, the
numbers of shadows and targets, and its place among them: it does not matter
which others the same command distils. Writes `sets.npz`, the images `x` and
encoded labels `y` of all sets, and `record.json`.
"""
from dsr.runs import launch
from dsr.studies.audit import half_sets

if __name__ == '__main__':
  launch.launch(half_sets.Config, half_sets.run)
