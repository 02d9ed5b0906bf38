r"""Does a network trained on a distilled set give back training images?

  python -m experiments.leakage --num_train=50 --workdir=out/leakage

Reconstruction is a form of distillation, and distillation a defence
(arXiv:2302.01428): what a network gives back are the images that it learned,
and of a distilled set those are not the training images. Of one small training
set T, this makes a set by each method, trains a network on each set, attacks
it, and counts what came back: images of the set, and images of T. `all` is T
itself; `kip_corrupted` is KIP with most pixels frozen to noise
(arXiv:2011.00050); sets of real images hold some of T by construction. Beside
each count stands what as many other real images would give, and the share of T
that the set itself shows.

T is written to the workdir by `experiments.leak_data`, sets are made of it by
`experiments.distill` and attacked by `experiments.attack_set`, each run in a
folder of its own with its command in `record.json`. Finished runs are kept, and
what was stopped goes on. Writes `table.md` and `.csv`, `nearest.md` and `.csv`
(how near sets and reconstructions are to training images), `leakage.png` (test
accuracy against the share of T that came back) and `record.json`, whose metrics
are called `<method>_<regime>_<metric>`.
"""
from dsr.runs import launch
from dsr.studies.audit import leakage

if __name__ == '__main__':
  launch.launch(leakage.Config, leakage.run, jobs=leakage.jobs_of)
