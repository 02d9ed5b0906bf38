"""Adversarial attacks by name: the table that flags and `--help` read."""
from collections.abc import Callable
from typing import Any, NamedTuple

from dsr.probes.attacks import (
  apgd,
  autoattack,
  cw,
  deepfool,
  fab,
  fgsm,
  pgd,
  square,
)


class Attack(NamedTuple):
  """A line of the table: an attack as the flag `attacks` names it.

  Attributes:
    run: (key, predict_fn, x, labels, *, epsilon, norm, ...) -> x_adv.
    norm: of its ball.
    help: in a line.
    options: of the function.
    steps: its argument that the flag `steps` sets, if any.
    targeted: whether it aims at the next class.
    usual: whether it is made unless others are asked for.
  """

  run: Callable
  norm: str
  help: str
  options: dict[str, Any] = {}
  steps: str | None = 'steps'
  targeted: bool = False
  usual: bool = True


ATTACKS: dict[str, Attack] = {
    'fgsm': Attack(fgsm.fgsm, 'linf', 'one step (arXiv:1412.6572)', steps=None),
    'pgd_linf': Attack(
        pgd.pgd, 'linf', 'projected gradient descent (arXiv:1706.06083)'),
    'pgd_l2': Attack(pgd.pgd, 'l2', 'the same in an l2 ball'),
    'pgd_targeted': Attack(
        pgd.pgd, 'linf', 'the same, towards the next class', targeted=True),
    'apgd_ce': Attack(
        apgd.apgd, 'linf', 'its steps sized by itself (arXiv:2003.01690)',
        {'loss': 'ce'}),
    'apgd_dlr': Attack(
        apgd.apgd, 'linf', 'the same, on the difference of logits ratio',
        {'loss': 'dlr'}),
    'square': Attack(
        square.square, 'linf', 'from outputs alone (arXiv:1912.00049)',
        {'steps': 300}, None),
    'deepfool': Attack(
        deepfool.deepfool, 'l2', 'to the nearest border (arXiv:1511.04599)',
        {}, None),
    'cw': Attack(
        cw.cw, 'l2', 'Carlini and Wagner (arXiv:1608.04644)',
        {'steps': 100, 'searches': 5}, None),
    'fab_linf': Attack(
        fab.fab, 'linf', 'to the nearest border, class by class '
        '(arXiv:1907.02044)', usual=False),
    'fab_l2': Attack(fab.fab, 'l2', 'the same in an l2 ball', usual=False),
    'autoattack': Attack(
        autoattack.autoattack, 'linf', 'APGD-CE, APGD-T, FAB-T and Square, '
        'each on what is left, with its own steps (arXiv:2003.01690)',
        steps=None, usual=False),
    'autoattack_l2': Attack(
        autoattack.autoattack, 'l2', 'the same in an l2 ball', steps=None,
        usual=False),
}


def describe() -> str:
  """The attacks, a line each, for `--help`."""
  return '\n'.join(['attacks:', *(
      f'  {name}: {attack.help}' for name, attack in ATTACKS.items())])
