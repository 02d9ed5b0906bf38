r"""Distilled sets and coresets on one footing: same networks, same evaluation.

  python -m experiments.compare --dataset=digits \
    --methods=random,kcenter,herding,mfc,dm,kip,rkip --images_per_class=1,10 \
    --networks=convnet3,mlp --workdir=out/compare

Runs what is missing by `experiments.distill`, each in a folder of its own;
finished runs are kept, and a comparison that was stopped goes on. Options of
single methods go through `--options`, such as

  --options=dm.steps=2000,kip.kernel=fcn2,rkip.max_train=20000,ridge=1e-5

All training images (the method `all`, networks for `--full_epochs`) and sets
from elsewhere (`--distilled=a.npz,b.npz`) are rows as well, judged alike by
`experiments.evaluate`; of learned labels also the classes alone, hard labels.
A size may have a number for each class, `--images_per_class=10,3:1:2` (of three
classes). The table has accuracies on the set itself: networks that do not fit
it are named.

Writes to the workdir: `table.md` and `table.csv`; `accuracy_<network>.png`
with intervals and published numbers; `time.png`, accuracy against the seconds
of the method; `images_<size>.png`, all methods side by side; `record.json`.
"""
from dsr.runs import launch
from dsr.studies.distillation import compare

if __name__ == '__main__':
  launch.launch(compare.Config, compare.run, jobs=compare.jobs_of)
