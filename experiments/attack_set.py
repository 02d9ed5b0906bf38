r"""Trains a victim on a set made of training images, and attacks it.

  python -m experiments.attack_set --dataset=T.npz --num_train=10 \
    --images=out/kip/distilled.npz --regime=infinite --workdir=out/attack_set

`experiments.leakage` makes T, the sets and these commands. The victim learns
the set alone, with its targets; T's mean is subtracted from all images, as it
was for the distillation. The attacker gets what `experiments.reconstruct`
gives, and the set's own least and greatest pixels: distilled ones may lie
outside [0, 1], and no attacker could know more of that.

Writes to the workdir: `reconstructions.png` (images of the set, what was
rebuilt, the training image nearest to that), `reconstruction.npz`, and
`record.json`. A finished run is kept unless `--fresh`; one stopped by Ctrl-C
goes on.
"""
from dsr.runs import launch
from dsr.studies.audit import attack_set

if __name__ == '__main__':
  launch.launch(attack_set.Config, attack_set.run)
