r"""The audit: is a distilled set good, private, robust and fair?

  python -m experiments.audit --dataset=digits \
    --methods=random,kcenter,mfc,dm,kip,rkip --images_per_class=10 \
    --workdir=out/audit
  python -m experiments.audit --dataset=digits --distilled=my_set.npz
  python -m experiments.audit --compare=out/a,out/b --workdir=out/changes

Makes the sets that are missing, trains models on each (kernel ridge regression
and networks) and, as the references, on all training images, plainly and by
DP-SGD; then asks of every set and model: how accurate is it, and for whom; who
was a member; what withstands attacks and corruptions; and of a small training
set, what do networks give back of it? (arXiv:2305.03355, arXiv:2302.01428.)

A set of one's own is an .npz with `images` and `labels`, a .pt or a folder, see
`dsr.studies.distillation.sets.from_file`. Every part is a run of its own with a
record and a command; finished parts are kept, so an audit that was stopped goes
on. A part that fails stops those that need it: the page names what is missing,
the command ends with status 1, and the next call makes that alone.

Writes to the workdir: `report.html` (one file, opens from disk), `report.md`,
`table.csv`, pictures as PNG and SVG, `record.json`, `cells.json` and
`cells.npz` (the table at the top, image by image), and a folder for each set.
`--compare` reads the cells of two audits and writes `compare.html`,
`compare.md` and `compare.json`: what changed, with the interval of the change.
"""
from dsr.runs import launch
from dsr.studies.audit import audit

if __name__ == '__main__':
  launch.launch(audit.Config, audit.run, jobs=audit.jobs_of)
