"""How long the parts of an audit take, for the word on what is left."""
from typing import Any

from dsr.studies.audit import leak_jobs

# Seconds of a part, by `kind`, with the embedded digits on two cores: what is
# told to be left begins with them, see `dsr.runs.progress`.
SECONDS = {
    'sets/random': 4, 'sets/kcenter': 1, 'sets/mfc': 1, 'sets/dm': 12,
    'sets/kip': 5, 'sets/rkip': 6, 'fits/krr': 1, 'fits/mlp': 2, 'fits/dp': 9,
    'membership/krr': 1, 'membership/mlp': 1.2, 'membership/set': 1,
    'robustness/krr': 3, 'robustness/mlp': 1, 'fairness/krr': 0.2,
    'fairness/mlp': 0.2, 'lira/all': 7, 'lira/random': 3, 'lira/kip': 3,
    'shadows/kip': 14, 'claims': 0.1, 'leakage': 1,
    **{f'leakage/{kind}': took for kind, took in leak_jobs.SECONDS.items()}}


def kind(name: str, job: Any) -> str:
  """What a stage of `Plan.stages` has in common with others that take as long.

  Its name with the method or the model in place of the subject: 'sets/kip',
  'fits/mlp'.
  """
  stage, _, label = name.partition(': ')
  if getattr(job, 'dp_epsilon', 0) and stage == 'fits':
    return f'{stage}/dp'
  if stage == 'leakage' and label:
    return f'{stage}/{leak_jobs.kind(job)}'
  what = getattr(job, 'method', label.rpartition('/')[2])
  return f'{stage}/{what}' if what else stage


