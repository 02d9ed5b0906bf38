r"""Distils a dataset and says what the result is worth.

  python -m experiments.distill --dataset=mnist --data_dir=$TFDS_DATA_DIR \
    --method=kip --kernel=fcn1 --images_per_class=10 --workdir=out/kip

Methods that learn: kip, rkip, rkip_finite, label_solve, dm, dc, dsa, idc,
frepo, mtt. Those that choose real images: random, herding, kcenter, kmedoids,
el2n, mfc (minimal finite covering). `notebooks/results.md` has commands with
device, time and numbers.

Writes to the workdir: `distilled.npz` (pixels, inputs, targets, labels; for
chosen images their rows, for mfc weights and certificate, for mtt the learned
rate of SGD, for idc `stored`, of which each image holds several of those),
`images.png` (pixel space, rows by class), `curve.png`, `validation.png`,
`record.json`. Stopped by Ctrl-C it writes what it has, without training
networks on it; called again it goes on from its checkpoint. On many hosts
(`--coordinator`, see --help) `--method=kip` deals its batches out to them.
"""
from dsr.runs import launch
from dsr.studies.distillation import distill

if __name__ == '__main__':
  launch.launch(distill.Config, distill.run, many_hosts=True)
