r"""Trains the network that `experiments.reconstruct` attacks.

  python -m experiments.train --dataset=mnist_odd_even --num_train=20 \
    --data_dir=$TFDS_DATA_DIR --width=1024 --workdir=out/train

Writes to the workdir: `victim.npz` (parameters before and after, checkpoints,
duals, training images, curve), `curve.png` and `record.json`. Stopped by Ctrl-C
it writes what it has; called again it goes on. On two CPU cores, float32, down
to a mean squared error of 1e-10 and with compilation: 20 images at width 1024
take 4 s (250 steps), 200 at width 2048 half a minute (600 steps).
"""
from dsr.runs import launch
from dsr.studies.reconstruction import train

if __name__ == '__main__':
  launch.launch(train.Config, train.run)
