# %% [markdown]
# # Wide networks are kernel machines
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/__owner__/dsr/blob/main/notebooks/01_ntk_limit.ipynb)
#
# **Claim.** The tangent kernel of a random network of width $W$ tends to the
# analytic one like $1/\sqrt W$; a network that follows its tangent kernel does
# kernel regression, at every moment of training; and the wider a network is, the
# less it leaves that path.
#
# **Source.** Theorems 1 and 2 of
# [arXiv:1806.07572](https://arxiv.org/abs/1806.07572) (the kernel at the start,
# and that it stays) and Theorem 2.1 of
# [arXiv:1902.06720](https://arxiv.org/abs/1902.06720) (networks stay close to
# their linearisation). The rates are measured here.
#
# **Time on 2 CPU cores.** About a minute.

# %%
# Installs dsr where it is missing; does nothing where it is there already.
import importlib.util
import pathlib
import subprocess
import sys

if importlib.util.find_spec('dsr') is None:
  here = pathlib.Path('../setup.py').exists()
  source = '..' if here else 'git+https://github.com/__owner__/dsr'
  subprocess.run([sys.executable, '-m', 'pip', 'install', '-q', source],
                 check=True)

# %%
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dsr import kernels, krr, nets, train
from dsr.data import map_host
from dsr.kernels import distance, empirical
from dsr.probes import intervals
from dsr.report import figures, notebook
from dsr.studies.reconstruction import victims
from dsr.types import Examples

jax.config.update('jax_enable_x64', True)

# %% [markdown]
# ## 1. The kernel at the start
#
# The tangent kernel of a network $f(x;\theta)$ at its random start is
#
# $$k_W(x,x')=\langle\nabla_\theta f(x;\theta_0),\nabla_\theta f(x';\theta_0)
# \rangle .$$
#
# It is a random function. With layers wide enough it hardly varies: an average
# over $W$ units, it tends to its mean $k$, with errors like $1/\sqrt W$.
#
# Inputs are twenty training images of the digits 3 and 8, and fifty test images.
# Networks have two hidden layers of $W$ ReLUs, in the parameterisation in which
# a limit exists. Twenty random starts for each width.
#
# | in the formulas | in the code |
# | --- | --- |
# | $k$ | `kernels.fcn(2, W_std, b_std)` |
# | $k_W$ at $\theta$ | `empirical.ntk(apply_fn, theta)` |
# | $f_t$, closed form | `krr.gradient_flow(kernel, examples)(x, t)` |

# %%
base = victims.VictimConfig(
    dataset='digits[3,8]', num_train=20, parameterisation='ntk',
    w_std=float(np.sqrt(2)), b_std=0.1, dtype='float64')
task = victims.prepare_victim_task(base)
x, y = map(jnp.asarray, task.examples)  # (20, 8, 8, 1), (20, 1): +-1.
others = jnp.asarray(map_host(
    task.transform.apply, task.test.x[:50].astype('float64')))
both = jnp.concatenate([x, others])
limit = np.asarray(jax.jit(lambda z: kernels.fcn(
    2, W_std=base.w_std, b_std=base.b_std)(z))(both))


def network(width):
  return victims.build(dataclasses.replace(base, width=width), 1)


def apply_of(module):
  return lambda theta, z: module.apply({'params': theta}, z)


widths, starts = (32, 64, 128, 256, 512, 1024), 20
kernel_at, errors = {}, np.zeros((starts, len(widths)))
for column, width in enumerate(widths):
  module = network(width)
  init = jax.jit(lambda key, module=module: module.init(key, x[:1])['params'])
  kernel_at[width] = jax.jit(lambda theta, module=module: empirical.ntk(
      apply_of(module), theta)(both))
  for row in range(starts):
    theta = init(jax.random.fold_in(jax.random.key(width), row))
    errors[row, column] = distance.relative_frobenius(
        limit, np.asarray(kernel_at[width](theta)))
slopes = np.polyfit(np.log(widths), np.log(errors).T, 1)[0]  # Of each start.
slope = intervals.mean_t(slopes)
print(f'slope of log error against log width: {slope.value:.3f} '
      f'[{slope.low:.3f}, {slope.high:.3f}], {starts} starts')

# %%
middle = np.exp(np.log(errors).mean())
notebook.picture(
    figures.scatter, np.tile(widths, starts + 1),
    np.concatenate([errors.ravel(), middle * np.sqrt(
        np.exp(np.log(widths).mean()) / widths)]),
    groups=['a random start'] * errors.size + ['slope -1/2'] * len(widths),
    log_x=True, log_y=True, xlabel='width of the hidden layers',
    ylabel='|k_W - k| / |k|',
    title=f'Slope {slope.value:.2f} [{slope.low:.2f}, {slope.high:.2f}]',
    alt='Scatter plot with two logarithmic axes: the relative distance of the '
        'tangent kernel from its limit against the width, twenty random '
        'starts a width. The points fall from about 0.4 at width 32 to about '
        '0.07 at width 1024, along a line of slope minus one half.')

# %% [markdown]
# ## 2. A linearised network does kernel regression
#
# Replace the network by its first-order Taylor series in $\theta$ at $\theta_0$.
# Gradient flow on its squared error is then solved in closed form, with the
# kernel matrix $K=k_W(X,X)$ of the $N$ training images,
#
# $$f_t(x)=f_0(x)+k_W(x,X)\,K^{-1}\big(I-e^{-tK/N}\big)\,(y-f_0(X)),$$
#
# and for $t\to\infty$ it is kernel regression of the residuals of the start. No
# width is needed for it. Descent in small steps follows the curve with an error
# proportional to the step, so that half the step must halve the error; and
# descent to the end, here with momentum, must end in the same place.

# %%
config = dataclasses.replace(
    base, width=256, regime='linearized', linearized_by='descent',
    tolerance=1e-20)
descended = victims.train_victim(config, task)
theta_0 = descended.theta_0
module = network(256)
kernel_256 = empirical.ntk(apply_of(module), theta_0)
start_x, start_others = (module.apply({'params': theta_0}, z)
                         for z in (x, others))
closed = krr.gradient_flow(kernel_256, Examples(x, y))
end = closed(others, f0_x=start_others, f0_train=start_x)
at_the_end = float(jnp.abs(train.outputs(descended, others) - end).max())
moved = float(jnp.abs(end - start_others).max())
print(f'{len(descended.curve)} steps, loss {descended.curve[-1]:.0e}: outputs '
      f'on 50 other images differ by {at_the_end:.0e}, training moved them by '
      f'{moved:.1f}')

# %%
def descend(rate, steps, every):
  """Outputs of plain descent on the other images, after each `every` steps."""
  linear, optimizer = nets.linearize(module, theta_0), optax.sgd(rate)
  step = train.gradient_descent(linear, optimizer).step
  state = train.State(theta_0, optimizer.init(theta_0), jax.random.key(0),
                      jnp.zeros((), jnp.int32), None)

  @jax.jit
  def walk(state, data):
    return jax.lax.scan(lambda s, _: step(s, data), state, length=every)[0]

  outputs = []
  for _ in range(0, steps, every):
    state = walk(state, Examples(x, y))
    outputs.append(linear.apply({'params': state.params}, others))
  return np.asarray(outputs)


fastest = float(closed.spectrum.values[-1]) / len(x)  # Of the exponentials.
times = np.arange(1, 21) * 10 * 0.1 / fastest
along = np.asarray(closed(
    others, jnp.asarray(times), f0_x=start_others, f0_train=start_x))
gaps = {name: float(np.abs(descend(rate / fastest, steps, steps // 20)
                           - along).max())
        for name, rate, steps in (('step', 0.1, 200), ('half', 0.05, 400))}
halved = gaps['step'] / gaps['half']
print(f'largest difference on the way: {gaps["step"]:.4f}, with half the step '
      f'{gaps["half"]:.4f}: {halved:.2f} times less')

# %% [markdown]
# ## 3. Real networks, lazy and less lazy
#
# A real network moves its kernel while it trains. We follow gradient flow of
# networks of three widths to a mean squared error of $10^{-10}$ and compare them
# with their own linearisation, which section 2 gives at once: by how much the
# outputs on the other images differ, and by how much the kernel has moved,
# $\lvert k_{\theta_T}-k_{\theta_0}\rvert/\lvert k_{\theta_0}\rvert$. The last
# column is what "feature learning" means here: the *alignment* of the kernel
# with the labels, $y^\top Ky/(\lvert y\rvert^2\lvert K\rvert)$, goes up.

# %%
def trained(width, seed):
  """A row: what became of a network and of its kernel."""
  victim = victims.train_victim(dataclasses.replace(
      base, width=width, recipe='flow', seed=seed), task)
  before, after = (np.asarray(kernel_at[width](theta))
                   for theta in (victim.theta_0, victim.theta_T))
  f_0 = np.asarray(apply_of(network(width))(victim.theta_0, both))
  gap = np.linalg.solve(before[:20, :20], np.asarray(y) - f_0[:20])
  linear = f_0[20:] + before[20:, :20] @ gap
  label = np.asarray(y)[:, 0] / np.linalg.norm(y)
  aligned = [label @ k[:20, :20] @ label / np.linalg.norm(k[:20, :20])
             for k in (before, after)]
  return {'width': width,
          'off': float(np.sqrt(np.mean((
              np.asarray(train.outputs(victim, others)) - linear)**2))),
          'moved': distance.relative_frobenius(before, after),
          'aligned': aligned[1] - aligned[0], 'from': aligned[0]}


SEEDS, SIZES = range(3), (32, 128, 512)
rows = [trained(width, seed) for width in SIZES for seed in SEEDS]


# %%
def of(width, name):
  return [row[name] for row in rows if row['width'] == width]


def slopes_of(name):
  logs = np.log([of(width, name) for width in SIZES])
  return intervals.mean_t(np.polyfit(np.log(SIZES), logs, 1)[0])


off, kernel_moved = slopes_of('off'), slopes_of('moved')
notebook.table(
    [{'width': width,
      'outputs off by': f'{np.mean(of(width, "off")):.3f}',
      'kernel moved by': f'{np.mean(of(width, "moved")):.3f}',
      'alignment':
          f'{np.mean(of(width, "from")):.3f} to '
          f'{np.mean(of(width, "from")) + np.mean(of(width, "aligned")):.3f}'}
     for width in SIZES] +
    [{'width': 'slope', 'outputs off by':
          f'{off.value:.2f} [{off.low:.2f}, {off.high:.2f}]',
      'kernel moved by': f'{kernel_moved.value:.2f} '
          f'[{kernel_moved.low:.2f}, {kernel_moved.high:.2f}]'}],
    ('width', 'outputs off by', 'kernel moved by', 'alignment'))

# %%
notebook.picture(
    figures.scatter, [row['width'] for row in rows] * 2,
    [row['off'] for row in rows] + [row['moved'] for row in rows],
    groups=['outputs off their linearisation'] * len(rows)
    + ['kernel moved'] * len(rows),
    log_y=True, xlabel='width of the hidden layers', ylabel='distance',
    title='Wider networks are lazier',
    alt='Scatter plot with a logarithmic vertical axis against the width, three '
        'seeds at each of three widths. Both the distance of the outputs from those '
        'of the linearised network and the relative change of the kernel fall '
        'with the width.')

# %% [markdown]
# ## What this does not say
#
# - It is about networks in this parameterisation, whose gradients are scaled as
#   $1/\sqrt W$, and about widths that grow while the images stay the same. With
#   twenty images a width of a thousand is wide; with a million images it is not.
# - Other scalings have limits in which features are learned at infinite width.
#   "Infinitely wide" does not mean "lazy" in general.
# - Lazy is not good, or bad: nothing here says which network has the better
#   test accuracy.
# - Descent with steps near the edge of stability is no flow. Networks trained so
#   leave their start further, at any of these widths.
#
# ## Checks

# %%
notebook.verify(
    notebook.Check('slope of the kernel\'s error against width', slope.value,
                   -0.6, -0.4),
    notebook.Check('width of its 95 % interval', slope.high - slope.low,
                   most=0.15),
    notebook.Check('descent to the end against closed form: largest difference',
                   at_the_end, most=1e-7),
    notebook.Check('what training moved, for scale', moved, least=0.5),
    notebook.Check('descent on the way: error of a step over that of half a '
                   'step', halved, 1.8, 2.2),
    notebook.Check('slope of the kernel\'s movement against width: upper end',
                   kernel_moved.high, most=-0.25),
    notebook.Check('slope of the distance from linearised outputs: upper end',
                   off.high, most=-0.25),
    notebook.Check('least gain in alignment with the labels',
                   min(row['aligned'] for row in rows), least=0.0))
