r"""DP-SGD audited in one training run (arXiv:2305.08846).

  python -m experiments.canaries --network=mlp --dp_epsilon=8 \
    --canaries=gradients --workdir=out/canaries

Canaries take part in the training with probability 1/2 each. Then an attacker
guesses who did, and abstains where he is not sure. So many right guesses would
be too unlikely if epsilon were small: the result is a lower bound of epsilon,
at 95 % confidence, beside the upper bound of the accountant. Of m canaries no
more can be proved than about log(m / 4): a lower bound far below the upper one
does not mean that the accountant is wasteful. One above it means a fault, as
`--noise_scale=0.001` makes on purpose; to be seen, it needs more canaries than
three times e^epsilon.

`--canaries=gradients` is a strong attacker who inserts gradients and sees the
parameters before and after; `mislabelled` one who inserts images with wrong
labels and sees losses. `canaries.npz` has the scores and who took part.
"""
from dsr.runs import launch
from dsr.studies.audit import canaries

if __name__ == '__main__':
  launch.launch(canaries.Config, canaries.run)
