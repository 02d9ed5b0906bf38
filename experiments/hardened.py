r"""Trains networks on one set, against attacks or plainly, and attacks them.

  python -m experiments.hardened --dataset=digits --network=mlp \
    --training=pgd --epsilon=0.1 --workdir=out/hardened

The set is what `experiments.distill` left in a folder, or without `--set` all
training images. Attacks move pixels, whatever transform the network reads:

  linf    PGD of arXiv:2402.05675: 20 steps of `linf_epsilon`, not cut to [0, 1]
  l2      its l2 form: 40 steps of `l2_epsilon`, cut to [0, 1]
  strong  APGD, 50 steps from a random point of the ball of `norm`, `epsilon`

An image that is wrong as it stands counts as broken. Of sets of real images,
which cover the training set with some radius eta, both sides of the bound on
adversarial training are evaluated (`dsr.probes.cover_bound`) for linf and l2.

Writes `hardened.npz` (right or wrong by network and image, sides of the bound,
losses) and `record.json`. Training goes on from a checkpoint after Ctrl-C.
"""
from dsr.runs import launch
from dsr.studies.hardening import hardened

if __name__ == '__main__':
  launch.launch(hardened.Config, hardened.run)
