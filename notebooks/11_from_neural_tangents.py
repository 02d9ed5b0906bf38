# %% [markdown]
# # Five first programs of neural-tangents, line by line
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/__owner__/dsr/blob/main/notebooks/11_from_neural_tangents.ipynb)
#
# **Claim.** What one writes first with
# [neural-tangents](https://github.com/google/neural-tangents), which is
# archived and does not import on JAX 0.6 or later, has a counterpart here of
# the same length, on today's JAX: analytic kernels, ensembles of trained
# networks, finite networks and their linear models, kernels by drawing, and
# large matrices.
#
# **Source.** Novak, Xiao, Hron, Lee, Alemi, Sohl-Dickstein, Schoenholz: *Neural
# Tangents: Fast and Easy Infinite Neural Networks in Python*,
# [arXiv:1912.02803](https://arxiv.org/abs/1912.02803); equations 13 to 16 of
# [arXiv:1902.06720](https://arxiv.org/abs/1902.06720) for the ensembles. The
# lines of neural-tangents are quoted as text, as they cannot be run beside ours.
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
import math

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dsr import data as data_lib, kernels, krr, nets
from dsr.report import curves, notebook
from dsr.types import Examples

jax.config.update('jax_enable_x64', True)
key = jax.random.key(0)
digits = data_lib.load('digits', seed=0)
images = jnp.asarray(digits.train.x[:40], jnp.float64)

# %% [markdown]
# ## 1. The kernel of an infinitely wide network
#
# ```python
# from neural_tangents import stax
# init_fn, apply_fn, kernel_fn = stax.serial(
#     stax.Dense(512, W_std=1.5, b_std=0.05), stax.Relu(),
#     stax.Dense(1, W_std=1.5, b_std=0.05))
# kernel = kernel_fn(x1, x2, ('nngp', 'ntk'))
# ```
#
# Here a layer has no width, as only its limit is meant; scales are keywords; and
# `get` is said when the kernel is made. With input covariances $q=\sigma_w^2
# |x|^2/D+\sigma_b^2$, $c=\sigma_w^2\langle x,x'\rangle/D+\sigma_b^2$ and the
# angle $\vartheta=\arccos(c/\sqrt{q q'})$ the answer is, in closed form,
#
# $$K=\sigma_w^2\,\frac{\sqrt{qq'}}{2\pi}\big(\sin\vartheta+(\pi-\vartheta)
# \cos\vartheta\big)+\sigma_b^2,\qquad
# \Theta=K+\sigma_w^2\,\frac{\pi-\vartheta}{2\pi}\,c .$$

# %%
W_STD, B_STD = 1.5, 0.05
layers = (kernels.Flatten(), kernels.Dense(W_std=W_STD, b_std=B_STD),
          kernels.Relu(), kernels.Dense(W_std=W_STD, b_std=B_STD))
kernel_fn = kernels.serial(*layers, get=('nngp', 'ntk'))
kernel = kernel_fn(images)

flat = np.asarray(images).reshape(len(images), -1)
c = W_STD**2 * flat @ flat.T / flat.shape[1] + B_STD**2
size = np.sqrt(np.outer(np.diag(c), np.diag(c)))
angle = np.arccos(np.clip(c / size, -1, 1))
formula_k = W_STD**2 * size / (2 * math.pi) * (
    np.sin(angle) + (math.pi - angle) * np.cos(angle)) + B_STD**2
formula_ntk = formula_k + W_STD**2 * (math.pi - angle) / (2 * math.pi) * c
off = ~np.eye(len(images), dtype=bool)  # arccos loses half the digits at 0.
closed_form = max(
    np.abs(np.asarray(kernel.nngp) / formula_k - 1)[off].max(),
    np.abs(np.asarray(kernel.ntk) / formula_ntk - 1)[off].max())
print(f'against the formula: largest relative difference {closed_form:.1e}')

# %% [markdown]
# ## 2. An infinite ensemble of trained networks
#
# ```python
# predict_fn = nt.predict.gradient_descent_mse_ensemble(
#     kernel_fn, x_train, y_train, diag_reg=1e-4)
# mean, cov = predict_fn(x_test=x_test, get='ntk', compute_cov=True)
# ```
#
# `krr.ensemble` takes both kernels; times are an argument of the call, and
# `None` is the end of training. An ensemble of three thousand *linear* networks,
# each drawn and trained to the end here, has the same mean and the same spread.

# %%
grid = jnp.linspace(-math.pi, math.pi, 100)[:, None]
x_train = jnp.array([-2.4, -1.6, -0.3, 0.4, 1.7])[:, None]
y_train = jnp.sin(x_train)
wide = [kernels.Dense(W_std=1.5, b_std=0.3), kernels.Erf()] * 2 + [
    kernels.Dense(W_std=1.5, b_std=0.3)]
ntk, nngp = (kernels.serial(*wide, get=get) for get in ('ntk', 'nngp'))
RIDGE = 1e-4
ensemble = krr.ensemble(ntk, nngp, Examples(x_train, y_train), ridge=RIDGE)
trained = ensemble(grid)
deviation = jnp.sqrt(jnp.diagonal(trained.covariance))

# Networks before training are draws of the Gaussian process of the NNGP.
both = jnp.concatenate([x_train, grid])
key, key_draw = jax.random.split(key)
prior = nngp(both)
root = jnp.linalg.cholesky(prior + 1e-10 * jnp.eye(len(both)))
drawn = root @ jax.random.normal(key_draw, (len(both), 3000))
before_train, before = drawn[:len(x_train)], drawn[len(x_train):]
theta = ntk(x_train)
theta += RIDGE * jnp.trace(theta) / len(x_train) * jnp.eye(len(x_train))
after = before + ntk(grid, x_train) @ jnp.linalg.solve(
    theta, y_train - before_train)
error = jnp.std(after, axis=1) / math.sqrt(after.shape[1])
mean_off = float(jnp.sqrt(jnp.mean(
    ((after.mean(axis=1) - trained.mean[:, 0]) / error)**2)))
spread_off = float(jnp.max(jnp.abs(
    jnp.std(after, axis=1) - deviation)) / jnp.max(deviation))
inside = float(jnp.mean(
    jnp.abs(jnp.sin(grid) - trained.mean)[:, 0] < 2 * deviation))
print(f'mean of 3,000 networks: {mean_off:.2f} standard errors away (root mean '
      f'square); their deviation within {100 * spread_off:.1f} % of the largest')
print(f'sin x within two deviations of the mean on {100 * inside:.0f} % of '
      'the line')
x_axis, middle = grid[:, 0], trained.mean[:, 0]
notebook.picture(
    curves.loss_curve,
    {'sin x': (x_axis, jnp.sin(x_axis)), 'mean': (x_axis, middle),
     'two deviations above': (x_axis, middle + 2 * deviation),
     'two deviations below': (x_axis, middle - 2 * deviation)},
    xlabel='x', ylabel='output', title='Five points of a sine',
    alt='Lines: a sine, the mean of an infinite ensemble that was trained on '
        'five points of it, and two deviations on either side, which are narrow '
        'at the points and wide between them and outside.')

# %% [markdown]
# ## 3. A finite network, its kernel and its linear model
#
# ```python
# ntk_fn = nt.empirical_ntk_fn(apply_fn, trace_axes=(-1,))
# k = ntk_fn(x1, x2, params)
# apply_lin = nt.linearize(apply_fn, params)
# ```
#
# A Flax module is all that is needed; what it holds besides parameters, such as
# statistics of batch norm, is left alone. The linear model is another module
# with the same `apply`.


# %%
class Network(nn.Module):
  """Two layers; any module does."""

  @nn.compact
  def __call__(self, x):
    x = nn.tanh(nn.Dense(256, param_dtype=jnp.float64)(
        x.reshape(len(x), -1)))
    return nn.Dense(1, param_dtype=jnp.float64)(x)


module = Network()
key, key_init, key_move = jax.random.split(key, 3)
variables = module.init(key_init, images)
empirical = kernels.empirical.ntk(module, variables)(images)
jacobian = jax.jacobian(
    lambda p: module.apply({'params': p}, images)[:, 0])(variables['params'])
rows = jnp.concatenate([a.reshape(len(images), -1)
                        for a in jax.tree.leaves(jacobian)], axis=1)
jacobians = float(jnp.max(jnp.abs(empirical - rows @ rows.T))
                  / jnp.max(empirical))
linear = nets.linearize(module, variables['params'])
leaves, structure = jax.tree.flatten(variables['params'])
steps = [jax.random.normal(k, a.shape, a.dtype) for k, a in zip(
    jax.random.split(key_move, len(leaves)), leaves)]


def remainder(size):
  """What the linear model lacks, at a distance of `size`."""
  moved = structure.unflatten(
      [a + size * d for a, d in zip(leaves, steps)])
  gap = (module.apply({'params': moved}, images)
         - linear.apply({'params': moved}, images))
  return float(jnp.sqrt(jnp.mean(gap**2)))


order = math.log(remainder(1e-2) / remainder(1e-4)) / math.log(100)
print(f'kernel against J J\': {jacobians:.1e}; the linear model\'s error is of '
      f'order {order:.2f} in the distance')

# %% [markdown]
# ## 4. A kernel by drawing networks
#
# ```python
# kernel_fn = nt.monte_carlo_kernel_fn(init_fn, apply_fn, key, n_samples=64)
# ```
#
# Here each entry comes with its standard error, so that one sees whether the
# limit is within it.

# %%
key, key_nets = jax.random.split(key)
narrow = nets.MLP(1, widths=(512,), parameterisation='ntk', w_std=W_STD,
                  b_std=B_STD)
few = images[:6]
drawn_kernel = kernels.monte_carlo(
    key_nets, lambda k: narrow.init(k, few), narrow, num=64)(few)
z = (drawn_kernel.mean - kernel_fn(few).ntk) / drawn_kernel.standard_error
z = float(jnp.sqrt(jnp.mean(z**2)))
print(f'limit against the mean of 64 draws: {z:.2f} standard errors (root mean '
      'square)')

# %% [markdown]
# ## 5. A matrix that does not fit at once
#
# ```python
# kernel_fn = nt.batch(kernel_fn, batch_size=64, device_count=-1)
# ```
#
# `kernels.gram` chooses tiles that fit, over all local devices; no batch size
# has to divide anything. Regression takes the matrix from there.

# %%
x = jnp.asarray(digits.train.x, jnp.float64)
y = jax.nn.one_hot(digits.train.y, 10, dtype=jnp.float64) - 0.1
fcn = kernels.fcn(2)
matrix = kernels.gram(fcn, x, tile_bytes=2**22)
tiled = float(jnp.max(jnp.abs(matrix[:100, -100:] - fcn(x[:100], x[-100:]))))
predict_fn = krr.fit(fcn, Examples(x, y), ridge=1e-6)
correct = jnp.argmax(predict_fn(jnp.asarray(digits.test.x, jnp.float64)),
                     axis=1) == jnp.asarray(digits.test.y)
accuracy = 100 * float(correct.mean())
print(f'{matrix.shape} in tiles of 4 MiB, largest difference {tiled:.0e}; '
      f'{accuracy:.1f} % of the test digits are right')

# %% [markdown]
# ## What this does not say
#
# - `stax` has layers that `dsr.kernels` lacks (attention, dropout, transposed
#   convolutions); `BUILD_NOTES.md` has the table of what is where. With the
#   extra `stax` the bridge `kernels.stax` still reaches them, on an older JAX.
# - A loss other than the squared error has no closed form in either; train the
#   linear model then.
# - Two deviations of such an ensemble are no promise: the sine leaves them on
#   half of the line above, as they tell how networks differ from each other.
# - Nothing is timed here: `python -m experiments.benchmark` does that, both
#   libraries side by side.
#
# ## Checks
#
# Each line is asserted.

# %%
notebook.verify(
    notebook.Check('kernels against the closed form: relative difference',
                   closed_form, most=1e-12),
    notebook.Check('ensemble: mean of drawn networks, in standard errors',
                   mean_off, most=2.0),
    notebook.Check("ensemble: drawn networks' deviation, relative difference",
                   spread_off, most=0.05),
    notebook.Check("empirical kernel against J J': relative difference",
                   jacobians, most=1e-12),
    notebook.Check("linear model: order of the error in the distance",
                   order, 1.8, 2.2),
    notebook.Check('limit against drawn kernels, in standard errors', z,
                   most=2.0),
    notebook.Check('tiled matrix against the kernel: largest difference',
                   tiled, most=1e-12),
    notebook.Check('test accuracy of the regression (%)', accuracy, least=95.0))
