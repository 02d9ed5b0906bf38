r"""Writes the training images that reconstructed ones are held against.

  python -m experiments.leak_data --dataset=digits --num_train=50 \
    --workdir=out/leak_data

`experiments.leakage` makes these commands. Without `--set` the images are T,
`--num_train` of them, of which sets are made. With a set of your own,
`--set=a.npz --num_train=0`, they are the training images nearest to its images
and up to 1,000 others, since nothing else of a large training set can have come
back through it. Writes `train.npz`, a dataset with the whole test set, with
`--set` also `set.npz`, the set as `experiments.attack_set` takes it, and
`record.json`.
"""
from dsr.runs import launch
from dsr.studies.audit import leak_data

if __name__ == '__main__':
  launch.launch(leak_data.Config, leak_data.run)
