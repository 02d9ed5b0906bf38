"""Never weaker than Foolbox, ART and torchattacks on the same network."""
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dsr import data as data_lib, nets, train
from dsr.probes.attacks import (
  apgd,
  autoattack,
  cw,
  deepfool,
  fgsm,
  pgd,
)
from dsr.types import Examples
from experiments.benchmark import attacks as attack_rivals

# Of the peers: what they import and how they call NumPy and PyTorch.
pytestmark = pytest.mark.filterwarnings('ignore')
torch = pytest.importorskip('torch')

ATTACKED = 100
STEPS = 20
EPSILON = {'linf': 0.05, 'l2': 0.5}  # About half of the digits fall.
SLACK = 1 / ATTACKED  # One example: steps round differently there.


class Victim(NamedTuple):
  """One network twice, and what is to be attacked."""

  predict: jax.tree_util.Partial
  network: torch.nn.Module
  x: np.ndarray
  labels: np.ndarray

  @property
  def inputs(self):
    """For PyTorch."""
    return attack_rivals.to_torch(self.x), torch.from_numpy(self.labels)

  def right(self, x):
    """By PyTorch's twin, so that rounding of ours cannot help us."""
    logits = self.network(attack_rivals.to_torch(x))
    return logits.argmax(dim=1).numpy() == self.labels

  def robust(self, x_adv):
    """Share that is right, clean and attacked."""
    return float(np.mean(self.right(self.x) & self.right(x_adv)))

  def ours(self, attack, **options):
    """Examples that one of our attacks makes."""
    return np.asarray(attack(
        jax.random.key(0), self.predict, jnp.asarray(self.x), self.labels,
        **options))


def _digits():
  from sklearn.datasets import load_digits

  x, labels = load_digits(return_X_y=True)
  x = (x / 16).astype(np.float32).reshape(-1, 8, 8, 1)
  return x, labels.astype(np.int64)


def _victim(module, x, labels, num_steps):
  shown = Examples(
      jnp.asarray(x[ATTACKED:700]),
      jnp.asarray(data_lib.encode(labels[ATTACKED:700], 10), jnp.float32))
  fit = train.fit_networks(
      jax.random.key(0), module, shown, optimizer=optax.adam(1e-2),
      num_steps=num_steps, num_networks=1, loss='mse', batch_size=100)
  params = {'params': jax.tree.map(lambda a: a[0], fit.params)}
  return Victim(
      jax.tree_util.Partial(module.apply, params),
      attack_rivals.twin(module, params, x.shape[1:]), x[:ATTACKED],
      labels[:ATTACKED])


@pytest.fixture(scope='module')
def mlp():
  return _victim(nets.MLP(10, widths=(64, 32)), *_digits(), num_steps=300)


@pytest.fixture(scope='module')
def convnet():
  return _victim(nets.ConvNet(10, depth=2, width=8), *_digits(), num_steps=100)


def _foolbox(victim, attack, **options):
  """What one of Foolbox's attacks makes, by its way of calling it."""
  foolbox = pytest.importorskip('foolbox')
  model = foolbox.PyTorchModel(victim.network, bounds=(0, 1), device='cpu')
  made = attack(foolbox.attacks).run(model, *victim.inputs, **options)
  return attack_rivals.from_torch(made)


def _art(victim, attack):
  """Likewise of ART."""
  pytest.importorskip('art')
  from art.attacks import evasion
  from art.estimators.classification import PyTorchClassifier

  x, labels = victim.inputs
  classifier = PyTorchClassifier(
      victim.network, torch.nn.CrossEntropyLoss(), x.shape[1:], 10,
      clip_values=(0.0, 1.0), device_type='cpu')
  made = attack(evasion, classifier).generate(x.numpy(), labels.numpy())
  return attack_rivals.from_torch(torch.from_numpy(made))


@pytest.fixture(scope='module')
def pgd_of_ours(mlp):
  """Robust accuracy by norm; both norms start at the examples."""
  return {norm: mlp.robust(mlp.ours(
      pgd.pgd, epsilon=epsilon, norm=norm, steps=STEPS, random_start=False,
      step_size=epsilon / 5)) for norm, epsilon in EPSILON.items()}


@pytest.mark.parametrize('name', ['mlp', 'convnet'])
def test_twins_have_the_same_logits_and_know_their_digits(name, request):
  victim = request.getfixturevalue(name)
  ours = np.asarray(victim.predict(jnp.asarray(victim.x)))
  theirs = victim.network(victim.inputs[0]).numpy()
  np.testing.assert_allclose(ours, theirs, atol=1e-5)
  assert np.mean(victim.right(victim.x)) > 0.85


@pytest.mark.slow
@pytest.mark.parametrize('side', [12, 32])
def test_lenet_has_a_twin_with_and_without_padding(side):
  x = np.random.default_rng(0).random((2, side, side, 1)).astype('f4')
  module = nets.LeNet(10)
  params = jax.jit(module.init)(jax.random.key(0), jnp.asarray(x))
  network = attack_rivals.twin(module, params, x.shape[1:])
  np.testing.assert_allclose(
      module.apply(params, jnp.asarray(x)),
      network(attack_rivals.to_torch(x)).numpy(), atol=1e-5)


@pytest.mark.parametrize('norm', ['linf', 'l2'])
def test_fgsm(mlp, norm):
  name = {'linf': 'LinfFastGradientAttack', 'l2': 'L2FastGradientAttack'}[norm]
  epsilon = EPSILON[norm]
  ours = mlp.robust(mlp.ours(fgsm.fgsm, epsilon=epsilon, norm=norm))
  foolbox = mlp.robust(_foolbox(
      mlp, lambda a: getattr(a, name)(), epsilon=epsilon))
  art = mlp.robust(_art(mlp, lambda a, c: a.FastGradientMethod(
      c, norm={'linf': np.inf, 'l2': 2}[norm], eps=epsilon)))
  assert 0.1 < foolbox < 0.9
  assert ours <= min(foolbox, art) + SLACK


@pytest.mark.parametrize('norm', ['linf', 'l2'])
def test_pgd(mlp, pgd_of_ours, norm):
  name = {'linf': 'LinfPGD', 'l2': 'L2PGD'}[norm]
  epsilon = EPSILON[norm]
  options = {'steps': STEPS, 'random_start': False}
  foolbox = mlp.robust(_foolbox(
      mlp, lambda a: getattr(a, name)(abs_stepsize=epsilon / 5, **options),
      epsilon=epsilon))
  art = mlp.robust(_art(mlp, lambda a, c: a.ProjectedGradientDescentPyTorch(
      c, norm={'linf': np.inf, 'l2': 2}[norm], eps=epsilon,
      eps_step=epsilon / 5, max_iter=STEPS, verbose=False)))
  assert 0.1 < foolbox < 0.9
  assert pgd_of_ours[norm] <= min(foolbox, art) + SLACK


@pytest.mark.parametrize('stop', [False, True])
def test_pgd_of_a_convnet(convnet, stop):
  epsilon = 0.05
  options = {'steps': 10, 'random_start': False}
  theirs = convnet.robust(_foolbox(
      convnet, lambda a: a.LinfPGD(abs_stepsize=epsilon / 5, **options),
      epsilon=epsilon))
  ours = convnet.robust(convnet.ours(
      pgd.pgd, epsilon=epsilon, step_size=epsilon / 5, stop=stop, **options))
  assert 0.1 < theirs < 0.9
  assert ours <= theirs + SLACK


@pytest.mark.parametrize('loss', ['ce', 'dlr'])
@pytest.mark.parametrize('norm', [
    'linf', pytest.param('l2', marks=pytest.mark.slow)])
def test_apgd(mlp, loss, norm):
  torchattacks = pytest.importorskip('torchattacks')
  epsilon = EPSILON[norm]
  ours = mlp.robust(mlp.ours(
      apgd.apgd, epsilon=epsilon, norm=norm, steps=STEPS, loss=loss))
  published = torchattacks.APGD(
      mlp.network, norm={'linf': 'Linf', 'l2': 'L2'}[norm], eps=epsilon,
      steps=STEPS, n_restarts=1, loss=loss)
  theirs = mlp.robust(attack_rivals.from_torch(published(*mlp.inputs)))
  kind = {'ce': 'cross_entropy', 'dlr': 'difference_logits_ratio'}[loss]
  art = mlp.robust(_art(mlp, lambda a, c: a.AutoProjectedGradientDescent(
      c, norm={'linf': np.inf, 'l2': 2}[norm], eps=epsilon,
      eps_step=2 * epsilon, max_iter=STEPS, nb_random_init=1,
      loss_type=kind, verbose=False)))
  assert 0.1 < theirs < 0.9
  assert ours <= min(theirs, art) + SLACK


@pytest.mark.slow
@pytest.mark.parametrize('norm', ['linf', 'l2'])
def test_the_ensemble_image_by_image(mlp, norm):
  """That of torchattacks has fewer steps unless it is made of its parts."""
  torchattacks = pytest.importorskip('torchattacks')
  how = {'norm': {'linf': 'Linf', 'l2': 'L2'}[norm], 'eps': EPSILON[norm]}
  ours = mlp.ours(autoattack.autoattack, epsilon=EPSILON[norm], norm=norm,
                  queries=1000)
  published = torchattacks.MultiAttack([
      torchattacks.APGD(mlp.network, steps=100, loss='ce', **how),
      torchattacks.APGDT(mlp.network, steps=100, n_classes=10, **how),
      torchattacks.FAB(mlp.network, steps=100, multi_targeted=True,
                       n_classes=10, **how),
      torchattacks.Square(mlp.network, n_queries=1000, **how)])
  theirs = attack_rivals.from_torch(published(*mlp.inputs))
  falls, peer = (mlp.right(mlp.x) & ~mlp.right(x) for x in (ours, theirs))
  assert 0.1 < peer.mean() < 0.9
  assert np.sum(peer & ~falls) <= 1  # Of 100.


def _median(victim, x_adv, norm):
  """Of the perturbations of what was right; infinite where none was found."""
  d = (x_adv - victim.x).reshape(ATTACKED, -1)
  size = np.linalg.norm(d, ord=np.inf if norm == 'linf' else 2, axis=1)
  size[victim.right(x_adv)] = np.inf
  return float(np.median(size[victim.right(victim.x)]))


@pytest.mark.parametrize('norm', ['linf', 'l2'])
def test_deepfool(mlp, norm):
  name = {'linf': 'LinfDeepFoolAttack', 'l2': 'L2DeepFoolAttack'}[norm]
  ours = mlp.ours(deepfool.deepfool, norm=norm)
  peers = [_foolbox(
      mlp, lambda a: getattr(a, name)(steps=50, overshoot=0.02))]
  if norm == 'l2':
    peers.append(_art(mlp, lambda a, c: a.DeepFool(
        c, max_iter=50, epsilon=0.02, nb_grads=10, batch_size=ATTACKED,
        verbose=False)))
  assert np.isfinite(_median(mlp, ours, norm))
  for theirs in peers:
    assert _median(mlp, ours, norm) <= 1.02 * _median(mlp, theirs, norm)
    assert mlp.robust(ours) <= mlp.robust(theirs) + SLACK


def test_cw(mlp):
  options = {'steps': 100, 'initial_c': 0.1}
  ours = mlp.ours(
      cw.cw, searches=6, learning_rate=0.05, **options)
  theirs = _foolbox(mlp, lambda a: a.L2CarliniWagnerAttack(
      binary_search_steps=6, steps=100, stepsize=0.05, initial_const=0.1))
  assert mlp.robust(ours) <= mlp.robust(theirs) + SLACK
  assert _median(mlp, ours, 'l2') <= 1.02 * _median(mlp, theirs, 'l2')


@pytest.mark.errors
def test_a_network_without_a_twin_is_refused():
  with pytest.raises(ValueError, match='`module` must be an MLP, a LeNet or'):
    attack_rivals.twin(nets.ConvNet(10, pool='max'), {'params': {}}, (8, 8, 1))
