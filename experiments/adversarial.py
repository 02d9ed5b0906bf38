r"""Does adversarial training on small sets make networks robust?

  python -m experiments.adversarial --dataset=mnist --data_dir=$TFDS_DATA_DIR \
    --methods=mfc,dm,kcenter,random,all --images_per_class=10,50 \
    --trainings=standard,pgd --norm=linf --epsilon=0.1 --workdir=out/adversarial

The question of arXiv:2402.05675. Sets are made by `experiments.distill`, with
`--options` as in `experiments.compare`; on each, and on all training images
('all'), `experiments.hardened` trains networks plainly and against attacks. On
sets of mfc the losses have the weights of the cover. Trainings: standard, pgd,
trades, and wide, pgd at radius epsilon + eta but at most `widest`, the training
that the bound speaks of (mfc alone).

Every set and every training is a run of its own with a record and a command;
finished ones are kept, and what was stopped goes on. Writes to the workdir:
`table.md`, `table.csv` (accuracies), `bound.md`, `bound.csv` (both sides of the
bound on adversarial training, for sets of real images; see
`dsr.probes.cover_bound` for what they prove), `accuracy_<training>.png`, and
`record.json`.
"""
from dsr.runs import launch
from dsr.studies.hardening import adversarial

if __name__ == '__main__':
  launch.launch(adversarial.Config, adversarial.run, jobs=adversarial.jobs_of)
