r"""Kernel ridge regression on up to tens of thousands of images.

  python -m experiments.krr --dataset=mnist --data_dir=$TFDS_DATA_DIR \
    --num_train=20000 --kernel=fcn2 --workdir=out/krr

Writes `record.json` to the workdir: the test accuracy with its 95 % interval,
the seconds of each stage and the peak memory. With the direct solver, memory
is about 12 N^2 bytes (float64) or 8 N^2 (float32): 5 GB at 20,000 images.
Beyond that `--solver=cg` holds only rows of the kernel. On many hosts it is the
solver, and each computes its rows:

  python -m experiments.krr --dataset=mnist --data_dir=$TFDS_DATA_DIR \
    --solver=cg --workdir=/shared/krr --coordinator=10.0.0.1:9876 \
    --num_processes=4 --process_id=0  # On the next host 1, and so on.
"""
from dsr.runs import launch
from dsr.studies import krr

if __name__ == '__main__':
  launch.launch(krr.Config, krr.run, many_hosts=True)
