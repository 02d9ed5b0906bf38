r"""What membership leakage depends on: size, start and number of classes.

  python -m experiments.membership_sweep --methods=all,random,kip \
    --images_per_class=1,10 --num_classes=2,10 --model=krr,mlp \
    --workdir=out/membership_sweep

Runs `experiments.lira` for each method, start and number of classes, with all
sizes and models: shadow models of random halves, LiRA and RMIA. It then takes
the differences that arXiv:2305.03355 is about: the largest less the smallest
size, real less noise, most less fewest classes. Differences of sizes and starts
are paired by attacked half; those of classes are not, as the images are others.
More classes also mean more images, as many of each class.

Finished runs in the workdir are kept (unless `--fresh`): a stopped sweep goes
on. `table.md` and `table.csv` have all rows, `differences.md` the differences,
with 95 % intervals over the sets attacked, `record.json` both.
"""
from dsr.runs import launch
from dsr.studies.audit import membership_sweep

if __name__ == '__main__':
  launch.launch(membership_sweep.Config, membership_sweep.run,
                jobs=membership_sweep.jobs_of)
