r"""How fast kernels and attacks are: ratios taken side by side, in one run.

  python -m experiments.benchmark --suite=kernels --workdir=out/benchmark
  python -m experiments.benchmark --only=kip      # Some of the cases.
  python -m experiments.benchmark --suite=gram    # A 20,000 x 20,000 matrix.
  python -m experiments.benchmark --suite=sets    # DM steps, coreset distances.
  python -m experiments.benchmark --suite=attacks # PGD and APGD, and PyTorch's.
  python -m experiments.benchmark --suite=clipping # DP-SGD, and Opacus's.
  python -m experiments.benchmark --suite=membership # Leave-one-out, shadows.
  python -m experiments.benchmark --suite=accelerator # All of it on a GPU.
  python -m experiments.benchmark --suite=thresholds # Of the attack's search.
  python -m experiments.benchmark --suite=claims  # Of attacks on networks.
  python -m experiments.benchmark --suite=hosts --arrays=mnist.npz # Processes.

The rivals of a case take turns (A B C A B C ...) after a warm-up that
compiles; each round gives one ratio, and the tables show the median of the
ratios with their quartiles. Ratios carry over to other machines better than
the milliseconds beside them; on a busy machine trust neither (seen: twice the
ratio beside another job). The values of the rivals are compared too, so that
no wrong answer is timed.

Units: `matmul` is one plain product `x1 @ x2.T` of the inputs of the case. A
KIP case is the value and the gradient of its loss with respect to the support
images; its unit is the product of one forward pass. Times of image kernels
are per entry of the matrix, from as many entries as each rival can take; their
peak memory is that of one and the same matrix, in processes of their own. The
unit of a DM step is the matrix products that its convolutions are. Attacks
are given in images times steps a second, and ratios of that: above one, ours is
faster. PyTorch gets as many threads as there are cores to run on; beside other
jobs, `taskset -c 0` and CPU seconds are the fairer comparison. Leaving each of
N examples out is held against N refits, of which a few are made and timed.

`accelerator` first holds kernels, regression, distillation, networks and
attacks on the device against a CPU, then times them; each part has a time
limit and is kept when a later one fails, so that the same command goes on.
`hosts` holds 2 and 4 processes that `jax.distributed` connects against one.
Its part `regression` is one step of CG on 30,000 images, 1.8e9 kernel entries
for each of the three: `--suite=hosts --only=regression --arrays=mnist.npz`.

`thresholds` times nothing: it counts the images that the first-layer attack
finds with each of its thresholds halved and doubled, on MNIST and CIFAR-10 from
$TFDS_DATA_DIR; `--shrink=5` takes a fifth of the seeds. `claims` counts how
often attacks are right where they claim to have a training image.

Everything but `membership`, `accelerator` and `hosts` is float32 with x64 off,
since neural-tangents would turn to float64 otherwise. Takes 4 minutes on 2 CPU
cores, 20 s with `--only=fcn`; works on accelerators, and without
neural-tangents, torch, foolbox, torchattacks or opacus: columns say so.
"""
import dataclasses
import time
from typing import Any, Literal

import jax

from dsr import checks
from dsr.runs import machine, records
from dsr.runs.launch import launch
from experiments.benchmark import (
  accelerator_suite,
  attack_claims,
  attack_suite,
  attacks as attack_rivals,
  clipping,
  host_suite,
  kernel_suite,
  kernels as rivals,
  membership_suite,
  set_suite,
  thresholds,
)


@dataclasses.dataclass(frozen=True)
class Config:
  """Times kernels, steps and attacks against their rivals."""

  # Which cases: kernels and KIP's loss, Gram matrices on several devices, steps
  # of distillation, adversarial attacks, clipped gradients, membership attacks,
  # all of it on an accelerator, by several processes, what an attack's
  # thresholds decide, or how often attacks are right in what they claim.
  suite: Literal['kernels', 'gram', 'sets', 'attacks', 'clipping',
                 'membership', 'accelerator', 'hosts', 'thresholds',
                 'claims'] = 'kernels'
  only: str = ''  # Only cases whose name contains this; '' for all.
  repeats: int = 15  # Rounds of a case, at most.
  seconds: float = 12.0  # After which a case stops, if it had three rounds.
  memory: bool = True  # Whether to measure the peak memory of image kernels.
  shrink: int = 1  # Divides all sizes, to try things out.
  seed: int = 0  # Of the inputs.
  # Images for the suites `accelerator` and `hosts`, an .npz as for
  # `experiments.krr`; unset: digits, or random ones.
  arrays: str = ''
  workers: int = 6  # Parts of the suite `accelerator` side by side.
  workdir: str = 'out/benchmark'  # Where record.json goes.


def run(config: Config) -> dict[str, records.Metric]:
  """Everything but flags; returns the metrics of the record: ratios."""
  began = time.monotonic()
  checks.one_of('suite', config.suite, _SUITES)
  checks.at_least('repeats', config.repeats, 1)
  checks.non_negative('seconds', config.seconds)
  checks.at_least('shrink', config.shrink, 1)
  checks.at_least('workers', config.workers, 1)
  load = machine.load_average()
  with jax.enable_x64(False):
    rows, shown = _SUITES[config.suite](config)
    metrics = {f'{row["case"]}_{key}': value for row in rows
               for key, value in row.items()
               if isinstance(value, records.Metric)}
    path = records.write(
        config.workdir, config=config, metrics=metrics,
        wall_time=time.monotonic() - began,
        extra={'rows': [_plain(row) for row in rows],
               'low_and_high': 'quartiles of the rounds',
               'neural_tangents': rivals.nt_version(),
               **{peer: attack_rivals.version(peer)
                  for peer in attack_rivals.PEERS},
               'cores': attack_rivals.num_cores(),
               'load_average': load})
  record = records.read(path)
  print(*shown, sep='\n\n')
  print(f'\nMedians and quartiles; {record["device"]}; {record["versions"]}; '
        f'neural-tangents {rivals.nt_version()}; load {load:.2f}; {path}')
  return metrics


_SUITES = {
    'kernels': kernel_suite.kernel_suite,
    'gram': kernel_suite.gram_suite,
    'sets': set_suite.set_suite,
    'attacks': attack_suite.attack_suite,
    'clipping': clipping.clipping_suite,
    'membership': membership_suite.membership_suite,
    'accelerator': accelerator_suite.accelerator_suite,
    'thresholds': thresholds.threshold_suite,
    'claims': attack_claims.claim_suite,
    'hosts': host_suite.host_suite,
}


def _plain(row) -> dict[str, Any]:
  return {key: value._asdict() if isinstance(value, records.Metric) else value
          for key, value in row.items()}


if __name__ == '__main__':
  launch(Config, run)
