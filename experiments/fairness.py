r"""For whom a model works: accuracy, leakage and robustness by class or group.

  python -m experiments.fairness --dataset=digits --fit=out/audit/kip_10/mlp \
    --reference=out/audit/all/mlp --workdir=out/fairness

Reads the test outputs of `experiments.fit`, and of a reference, as a rule the
same model of all training images, on the same test images: every number comes
with its change. `--membership` and `--robustness`, workdirs of these
experiments, add how much of each class leaks and what withstands attacks.
`--groups` is a .npy (N_test,) of any attribute of the test images, integers or
strings, and adds equalised odds across it; (N_test, 2) are two, which are
crossed. With `--train_groups`, of training images, membership is told by group.

Writes `record.json`: `<number>`, `change_<number>`, `accuracy_<group>`,
`robust_<class>`, `leak_<class>` and, of an attribute, `group_<number>`.
"""
from dsr.runs import launch
from dsr.studies.audit import fairness

if __name__ == '__main__':
  launch.launch(fairness.Config, fairness.run)
