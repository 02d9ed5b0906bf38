r"""Three claims of arXiv:2305.03355, held against the records of an audit.

  python -m experiments.claims --audit=out/audit --subjects=kip_1,kip_10 \
    --models=krr,mlp --workdir=out/audit/claims

  size    a set of more images per class leaks more about its training set;
  init    a set that started from real images leaks more than one from noise,
          about its training set, and about the images that it started from;
  spread  a model of a distilled set is less even across classes than one of
          all images.

Leaks are AUCs of one attack that was named beforehand, the squared error of
kernel regression and the loss of networks; differences are paired by example
and have intervals over models and examples. A claim is supported by a case if
the interval is above 0 and contradicted if it is below; several cases are
several chances to be wrong, and no correction is made for that.
"""
from dsr.runs import launch
from dsr.studies.audit import claims

if __name__ == '__main__':
  launch.launch(claims.Config, claims.run)
