r"""Membership inference against a set of images, and models trained on it.

  python -m experiments.membership --dataset=digits --set=out/audit/kip_10 \
    --model=mlp --fit=out/audit/kip_10/mlp --workdir=out/membership

Two questions, kept apart. `train`: was an image in the training set that the
set was made of? `init`: was a training image one of those that the set started
from, or consists of? A set that started from noise has the latter as well, as
the control: the images that it would have started from. `--model=set` asks
both of the images of the set alone, by distance and density, and no model.

Non-members of `train` are training images that `max_train` leaves unused, or
else the test set; those of `init` are other training images. Attacks know the
labels. Learned attacks are cross-fitted on the true memberships, so they have
more than an attacker would. Shadow models are in `experiments.lira`.

Writes `membership.npz` (all scores) and `record.json`; the AUC, the advantage
and the TPR at low FPR of every attack, with intervals over models and images.
"""
from dsr.runs import launch
from dsr.studies.audit import membership

if __name__ == '__main__':
  launch.launch(membership.Config, membership.run)
