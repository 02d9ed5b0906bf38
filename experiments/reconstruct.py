r"""Rebuilds the training images of a network, and says how well.

  python -m experiments.reconstruct --dataset=mnist_odd_even --num_train=20 \
    --data_dir=$TFDS_DATA_DIR --regime=infinite --workdir=out/reconstruct

Regimes: an infinitely wide network (kernel interpolation), of which function
values are released; a finite one, linearized or standard, of which parameters
are, or values with `--threat=query` (f_T - f_0) or `--threat=outputs` (f_T):

  python -m experiments.reconstruct --dataset=digits --num_train=10 \
    --regime=standard --recipe=flow --tolerance=1e-6 --threat=query \
    --parameterisation=ntk --w_std=1.4142135623730951 --b_std=0.1 --depth=1 \
    --width=1024 --options=blur=0.7 --workdir=out/query

`--victim` takes the workdir of `experiments.train` instead of training.
`--sweep` goes through `--widths` and `--nums`; `--compare=published` lets
another attack race on the same victim, with `--regime=both` on a linearized
victim and on a standard one. `notebooks/results.md` has times and numbers.
`--architecture=efficientnet_lite0` fine-tunes a network from ImageNet, whose
weights are in the extra `pretrained`.

Writes to the workdir: `reconstructions.png` (pairs, best first), `curve.png`,
`outliers.png`, `reconstruction.npz`, `record.json`, and of a fine-tuned victim
`similar.png` (pairs by SSIM). A finished run is kept and shown again unless
`--fresh`; one stopped by Ctrl-C goes on.
"""
from dsr.runs import launch
from dsr.studies.reconstruction import reconstruct

if __name__ == '__main__':
  launch.launch(reconstruct.Config, reconstruct.run, jobs=reconstruct.jobs_of)
