# %% [markdown]
# # The reconstruction loss is a squared distance between two measures
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/__owner__/dsr/blob/main/notebooks/02_attack_is_mmd.ipynb)
#
# **Claim.** The loss by which an attacker rebuilds training images from the
# weights of a network is a squared maximum mean discrepancy (MMD) between two
# signed measures: the training images weighted by their dual coefficients, and
# the attacker's candidates weighted by theirs.
#
# **Source.** Loo, Hasani, Lechner, Amini, Rus: *Understanding Reconstruction
# Attacks with the Neural Tangent Kernel and Dataset Distillation*,
# [arXiv:2302.01428](https://arxiv.org/abs/2302.01428), which states it in
# words; the paper gives it no theorem of its own that we could read, so the
# identities below are derived here and measured in float64.
#
# **Time on 2 CPU cores.** About 30 seconds.

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
import jax
import jax.numpy as jnp
import numpy as np

from dsr import kernels
from dsr.attack import match, ntk_limit, projection
from dsr.kernels import empirical
from dsr.report import figures, notebook
from dsr.studies.reconstruction import cases, reconstruct, scoring, victims
from dsr.studies.reconstruction.attacks import resolve

jax.config.update('jax_enable_x64', True)
key = jax.random.key(0)

# %% [markdown]
# ## 1. Two ways to write one loss
#
# A network $f(x;\theta)$ is trained on images $x_1,\dots,x_N$. In the kernel
# regime its parameters change by a sum of the gradients at these images,
#
# $$\Delta\theta=\theta_T-\theta_0=\sum_{i=1}^N\alpha_i\,\phi(x_i),\qquad
# \phi(x)=\nabla_\theta f(x;\theta_0).$$
#
# The attacker knows $\theta_0$ and $\theta_T$, but neither the images nor their
# dual coefficients $\alpha_i$. They move candidates $\hat x_j$ with
# coefficients $\hat\alpha_j$ until the following is small:
#
# $$L(\hat x,\hat\alpha)=\Big\|\Delta\theta-\sum_{j=1}^M\hat\alpha_j\,
# \phi(\hat x_j)\Big\|^2 .$$
#
# With $k(x,x')=\langle\phi(x),\phi(x')\rangle$, the neural tangent kernel, and
# the two signed measures $\mu=\sum_i\alpha_i\delta_{x_i}$ and
# $\nu=\sum_j\hat\alpha_j\delta_{\hat x_j}$, the square is
#
# $$L=\alpha^\top K_{XX}\alpha-2\,\alpha^\top K_{X\hat X}\hat\alpha
# +\hat\alpha^\top K_{\hat X\hat X}\hat\alpha=\mathrm{MMD}_k^2(\mu,\nu).$$
#
# The victim here is a multilayer perceptron with two hidden layers of 256
# units, linearised at its start, on twenty images of the digits 3 and 8.
#
# | in the formulas | in the code |
# | --- | --- |
# | $x_i$, $\alpha_i$ | `x`, `duals` |
# | $\theta_0$, $\theta_T$ | `victim.theta_0`, `victim.theta_T` |
# | $k$ | `ntk` |
# | $\hat x_j$, $\hat\alpha_j$ | `candidates`, `weights` |

# %%
config = victims.VictimConfig(
    dataset='digits[3,8]', num_train=20, regime='linearized', width=256,
    dtype='float64')
task = victims.prepare_victim_task(config)
victim = victims.train_victim(config, task)
x, duals = jnp.asarray(task.examples.x), victim.duals  # (N, 8, 8, 1), (N, 1)
forward = lambda theta, x: victim.module.apply({'params': theta}, x)
ntk = empirical.ntk(forward, victim.theta_0)

key, key_images, key_weights = jax.random.split(key, 3)
candidates = 0.3 * jax.random.normal(key_images, (30, *x.shape[1:]))
weights = jax.random.normal(key_weights, (30, 1))


@jax.jit
def loss_of_parameters(candidates, weights):
  """The left side: a sum over all parameters, no kernel in sight."""
  weighted = lambda theta: jnp.vdot(weights, forward(theta, candidates))
  made = jax.grad(weighted)(victim.theta_0)
  gaps = jax.tree.map(
      lambda a, b, c: jnp.sum((a - b - c)**2), victim.theta_T,
      victim.theta_0, made)
  return sum(jax.tree.leaves(gaps))


def squared_mmd(k_xx, k_xz, k_zz, a, b):
  """The right side: three blocks of the kernel, no parameters in sight."""
  return np.vdot(a, k_xx @ a) - 2 * np.vdot(a, k_xz @ b) + np.vdot(b, k_zz @ b)


both = np.asarray(ntk(jnp.concatenate([x, candidates])))  # All pairs at once.
k_xx, k_xz, k_zz = both[:20, :20], both[:20, 20:], both[20:, 20:]
left = loss_of_parameters(candidates, weights)
right = squared_mmd(k_xx, k_xz, k_zz, np.asarray(duals), np.asarray(weights))
identity = abs(float(left / right) - 1)
num_parameters = sum(a.size for a in jax.tree.leaves(victim.theta_0))
print(f'{num_parameters} parameters')
print(f'over all parameters  {float(left):.15g}')
print(f'over pairs of images {float(right):.15g}')
print(f'relative difference  {identity:.1e}')

# %% [markdown]
# ## 2. What the distance measures
#
# MMD is the largest difference that a function of norm 1 in the kernel's
# Hilbert space can tell between the two measures,
#
# $$\mathrm{MMD}_k(\mu,\nu)=\sup_{\|g\|\le1}\Big|\sum_i\alpha_i\,g(x_i)
# -\sum_j\hat\alpha_j\,g(\hat x_j)\Big|,$$
#
# and the function that reaches it, the *witness*, is the difference of what the
# two measures make of the network, $f_\mu-f_\nu$ with
# $f_\mu(x)=\sum_i\alpha_i k(x_i,x)$. So the attack compares functions: the
# loss is zero once the candidates explain what the network learned
# *everywhere*, not on the training images alone.
#
# Inputs on a circle make it visible: four "images" are angles, and the kernel
# is that of the infinitely wide network, `kernels.fcn(2)`. Three candidates at
# the wrong places leave a witness with peaks and dents; a fourth candidate at
# the right places leaves none.

# %%
names = ('images', 'wrong', 'right', 'places', 'grid')
key, key_places = jax.random.split(key)
angles = np.concatenate([
    [40, 110, 190, 290],  # Images, of the labels 1, -1, 1, -1.
    [60, 130, 270], [110, 290, 40, 190],  # Three wrong candidates, four right.
    np.asarray(jax.random.uniform(key_places, (30,), maxval=360)),
    np.arange(361)])
part = dict(zip(names, np.split(np.arange(402), [4, 7, 11, 41])))
circle = np.sqrt(2) * jnp.stack(
    [jnp.cos(jnp.deg2rad(angles)), jnp.sin(jnp.deg2rad(angles))], axis=1)
gram = np.asarray(jax.jit(kernels.fcn(2).symmetric)(circle))
block = lambda left, right: gram[np.ix_(part[left], part[right])]

alpha = np.linalg.solve(block('images', 'images'), [1, -1, 1, -1])
learned = lambda where: block(where, 'images') @ alpha  # f_mu
weights_of, loss_of = {}, {}
for name in ('wrong', 'right'):
  weights_of[name] = np.linalg.solve(block(name, name), learned(name))
  loss_of[name] = (alpha @ learned('images')
                   - weights_of[name] @ learned(name))
witness_of = {name: learned('grid') - block('grid', name) @ weights_of[name]
              for name in ('wrong', 'right')}
notebook.picture(
    figures.loss_curve,
    {'what the network learned': (angles[part['grid']], learned('grid')),
     'witness of three wrong candidates':
         (angles[part['grid']], witness_of['wrong']),
     'witness of the right four': (angles[part['grid']], witness_of['right'])},
    xlabel='angle of the input (degrees)', ylabel='output',
    title=f'MMD² is {loss_of["wrong"]:.2f} with wrong candidates and below '
          f'{max(abs(loss_of["right"]), 1e-14):.0e} with the right ones',
    alt='Three curves over the angle of the input. What the network learned '
        'goes up and down between 1 and -1. The witness of three wrong '
        'candidates has peaks and dents of similar height. The witness of the '
        'four right candidates is a flat line at zero.')

# %% [markdown]
# The supremum can be tested: ten thousand random functions of norm 1 all tell
# less than the witness does, and the witness tells exactly the MMD.

# %%
key, key_functions = jax.random.split(key)
drawn = np.asarray(jax.random.normal(key_functions, (30, 10_000)))
functions = drawn / np.sqrt(np.sum(
    drawn * (block('places', 'places') @ drawn), axis=0))
told = np.abs(alpha @ block('images', 'places') @ functions
              - weights_of['wrong'] @ block('wrong', 'places') @ functions)
mmd = float(np.sqrt(loss_of['wrong']))
joined = np.concatenate([part['images'], part['wrong']])
signed = np.concatenate([alpha, -weights_of['wrong']])
witness = gram[np.ix_(joined, joined)] @ signed / mmd  # At all of the points.
attained = abs(float(signed @ witness) / mmd - 1)
print(f'MMD {mmd:.4f}; the best of 10,000 random functions tells '
      f'{told.max():.4f}; the witness, relative to MMD: 1 ± {attained:.0e}')

# %% [markdown]
# ## 3. Split, merge, and what is left open by it
#
# A measure does not change when a point is split into two copies that share its
# weight, or when two copies are merged. So neither does the loss: with $M>N$
# candidates the zeros of the loss are a whole plane of coefficients, and an
# image may come back several times. The attack cannot go wrong by it, since
# only the *sum* over the copies of an image is determined.

# %%
def loss_of_measure(points, coefficients):
  return float(loss_of_parameters(points, coefficients))


size = float(np.vdot(duals, k_xx @ duals))  # |Δθ|², without candidates.
shares = np.linspace(-2, 3, 11)
split_x = jnp.concatenate([x, x[:1]])
split = [loss_of_measure(split_x, jnp.concatenate(
    [share * duals[:1], duals[1:], (1 - share) * duals[:1]])) / size
         for share in shares]
missing = loss_of_measure(x[1:], duals[1:]) / size
print('loss over |Δθ|², first image split into shares w and 1 - w:')
print(f'  at most {max(split):.1e} for w from -2 to 3')
print(f'  {missing:.3f} without that image')

# %% [markdown]
# Now a real attack, at infinite width, with twice as many candidates as there
# are images (`ntk_limit`; its restarts, which would remove surplus candidates,
# are off). Nobody tells it the duals. Of each image we add up the coefficients
# of all candidates that ended within a root mean squared error of 0.05 of it.

# %%
wide = resolve(reconstruct.Config(
    dataset='digits[3,8]', num_train=8, regime='infinite'))
wide_case = cases.make_case(wide, None)
found = ntk_limit.reconstruct(
    jax.random.key(1), wide_case.released,
    ntk_limit.Config(ratio=2.0, steps=1500, restart_every=0, dtype='float64'),
    kernel_fn=wide_case.kernel_fn, progress=False)
gaps = match.distances(
    wide_case.task.train.x, scoring.to_pixels(wide_case, found.candidates))
owner = np.where(gaps.min(axis=0) < 0.05, gaps.argmin(axis=0), -1)
sums = np.array([found.duals[owner == i].sum() for i in range(8)])
copies_error = float(np.abs(sums / wide_case.duals[:, 0] - 1).max())
stray = float(np.abs(found.duals[owner == -1]).sum() / np.abs(sums).sum())
notebook.table(
    [{'image': i, 'candidates': int((owner == i).sum()),
      'sum of their weights': f'{sums[i]:.5f}',
      'true dual': f'{wide_case.duals[i, 0]:.5f}'} for i in range(8)] +
    [{'image': 'none', 'candidates': int((owner == -1).sum()),
      'sum of their weights': f'{found.duals[owner == -1].sum():.5f}',
      'true dual': '0'}],
    ('image', 'candidates', 'sum of their weights', 'true dual'))

# %%
order = [np.flatnonzero(owner == i)[gaps[i, owner == i].argmin()]
         for i in range(8) if (owner == i).any()]
seen = [i for i in range(8) if (owner == i).any()]
notebook.picture(
    figures.pairs, wide_case.task.train.x[seen],
    np.clip(scoring.to_pixels(wide_case, found.candidates), 0, 1)[order],
    gaps[seen, order], title='Training images, and the nearest candidate',
    alt='Eight pairs of handwritten digits 3 and 8: each training image above '
        'the candidate nearest to it. By eye the two of a pair are equal; the '
        'errors under them are printed.')

# %% [markdown]
# ## 4. The coefficients can be eliminated
#
# For fixed candidates the loss is quadratic in $\hat\alpha$. With
# $v_j=\langle\phi(\hat x_j),\Delta\theta\rangle$ and $K=K_{\hat X\hat X}$ the
# best coefficients solve $K\hat\alpha=v$, and what is left,
#
# $$\min_{\hat\alpha}L=\|\Delta\theta\|^2-v^\top K^{-1}v,$$
#
# depends on the candidates alone: the squared distance of $\Delta\theta$ from
# the span of their gradients. `projection.project` computes it, and the attacks
# `finite` and `ntk_limit` move candidates on it, so that no coefficient needs a
# starting value or a learning rate. Without candidate $j$ it would be larger by
# `projection.gains`, $\hat\alpha_j^2/[K^{-1}]_{jj}$.

# %%
delta = jax.tree.map(jnp.subtract, victim.theta_T, victim.theta_0)


@jax.jit
def eliminate(k, z):
  """The best coefficients, what they leave, and the gain of each candidate."""
  v = jax.jvp(lambda theta: forward(theta, z), (victim.theta_0,), (delta,))[1]
  at_best = projection.project(k, v, jitter=1e-14)
  return at_best.duals, size - at_best.explained, projection.gains(at_best)


best, left_over, gains = eliminate(k_zz, candidates)
written_out = float(loss_of_parameters(candidates, best))
elimination = abs(float(left_over) / written_out - 1)
key, key_others = jax.random.split(key)
others = [float(loss_of_parameters(
    candidates, best + 1e-3 * jax.random.normal(k, weights.shape)))
          for k in jax.random.split(key_others, 50)]
_, left_without, _ = eliminate(k_zz[1:, 1:], candidates[1:])
gain_error = abs(float(gains[0] / (left_without - left_over)) - 1)
print(f'|Δθ|² - v\'K⁻¹v {float(left_over):.12g}, '
      f'written out {written_out:.12g}')
print(f'lowest of 50 other coefficients near by: {min(others):.12g}')
print(f'without the first candidate: + {float(gains[0]):.6g} by the formula, '
      f'relative difference to a second solve {gain_error:.0e}')

# %% [markdown]
# ## What this does not say
#
# - It is an identity for *linearised* training, or infinite width. A finite
#   network moves its kernel while it trains, $\Delta\theta$ is then an integral
#   of gradients along the path, and the true images no longer give loss zero.
# - A small distance between measures is not a small distance between images.
#   That follows at loss zero only, and only if the kernel is characteristic;
#   without biases it is not, as $k(cx,\cdot)=c\,k(x,\cdot)$ for $c>0$.
# - It does not say that descent finds the zero. With twice as many candidates
#   as images some end as leftovers with weight zero; with as many as images,
#   some images are often missed.
# - Nor does it say that the attacker knows when they have succeeded: the loss
#   tells how much of the network is explained, not by whose images. That the
#   predictor has a kink at each of them does, see `dsr.attack.kinks`.
#
# ## Checks
#
# Each line is asserted.

# %%
notebook.verify(
    notebook.Check('loss over parameters against MMD²: relative difference',
                   identity, most=1e-12),
    notebook.Check('best of 10,000 functions of norm 1, in units of MMD',
                   float(told.max()) / mmd, most=1.0),
    notebook.Check('what the witness tells against MMD: relative difference',
                   attained, most=1e-9),
    notebook.Check('loss after a split, over |Δθ|²', max(split), most=1e-12),
    notebook.Check('loss without that image, over |Δθ|²', missing, least=1e-3),
    notebook.Check('images found by the attack', len(seen), 8, 8),
    notebook.Check('sum of the copies\' weights against the dual: largest '
                   'relative difference', copies_error, most=1e-3),
    notebook.Check('weight of candidates at no image, share', stray, most=1e-3),
    notebook.Check('loss without coefficients against written out: relative '
                   'difference', elimination, most=1e-10),
    notebook.Check('best coefficients against 50 others: least difference',
                   min(others) - written_out, least=0.0),
    notebook.Check('gain of a candidate against a second solve: relative '
                   'difference', gain_error, most=1e-8))
