r"""What a set of images is worth: kernel regression and networks trained on it.

  python -m experiments.evaluate --dataset=digits --set=mine.npz \
    --networks=convnet3 --protocol=condensation --workdir=out/evaluate

The set is an .npz, a .pt or a folder of pictures of one's own, or the
`distilled.npz` of a distillation (see the README); without `--set` it is all
training images. Of learned labels both are measured, the set as it is and with
the classes as hard labels.

Writes `record.json`: accuracies with intervals, also on the set itself, since
networks that do not fit it say little of it.
"""
from dsr.runs import launch
from dsr.studies.distillation import evaluate

if __name__ == '__main__':
  launch.launch(evaluate.Config, evaluate.run)
