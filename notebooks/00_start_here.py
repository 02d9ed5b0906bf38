# %% [markdown]
# # Start here: a kernel, a small set, an attack, an audit
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/__owner__/dsr/blob/main/notebooks/00_start_here.ipynb)
#
# **Claim.** The training of a wide network is known in closed form. That makes
# small training sets that stand for large ones; it also makes attacks that read
# training images off a network's weights. Both fit in a page.
#
# **Source.** The neural tangent kernel:
# [arXiv:1806.07572](https://arxiv.org/abs/1806.07572); kernel inducing points
# (KIP): [arXiv:2011.00050](https://arxiv.org/abs/2011.00050); the attack and what
# it has to do with distillation:
# [arXiv:2302.01428](https://arxiv.org/abs/2302.01428). The other notebooks take
# each apart.
#
# **Time on 2 CPU cores.** About two minutes.

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
import numpy as np

from dsr import kernels, krr
from dsr.attack import match
from dsr.probes import fairness, intervals, membership, scores
from dsr.probes.attacks import pgd
from dsr.report import figures, notebook
from dsr.studies.distillation import distill, problem as problems
from dsr.studies.reconstruction import reconstruct, scoring

jax.config.update('jax_enable_x64', True)
key = jax.random.key(0)

# %% [markdown]
# ## 1. A kernel
#
# A network of infinite width, trained to the end, is kernel regression with its
# neural tangent kernel $k$: $f(x)=k(x,X)\,[K+\lambda I]^{-1}y$. `kernels.fcn(1)`
# is the kernel of one hidden layer, `krr.fit` the regression. The images are 8 x 8
# digits, which come with the library.

# %%
problem = problems.prepare(
    'digits', data_dir=None, transform='standardise', images_per_class=10,
    max_train=0, validation=0, seed=0)
kernel_fn = kernels.fcn(1)
fit = jax.jit(lambda examples: krr.fit(kernel_fn, examples, ridge=1e-6))
x_test, y_test = problem.inputs(problem.test), problem.test.y


def accuracy_of(predict):
  """Test accuracy with its 95 % interval."""
  said = predict(x_test).argmax(axis=1)
  return intervals.wilson(int((np.asarray(said) == y_test).sum()), len(y_test))


percent = lambda m: f'{100 * m.value:.1f} % [{100 * m.low:.1f}, {100 * m.high:.1f}]'
whole = fit(problem.examples(problem.train))
all_images = accuracy_of(whole)
print(f'{len(problem.train)} images: test accuracy {percent(all_images)}')

# %% [markdown]
# ## 2. A small set
#
# KIP moves a few images, by the gradient of that regression's loss on all images,
# until regression on the few is accurate on the many. Ten images a class take the
# place of some 140; they start as ten random ones. This is the first example of
# the README, in memory: `distil` is `run` without files.

# %%
made = distill.distil(distill.Config(
    dataset='digits', method='kip', networks=''))
small, start = (made.metrics[name] for name in (
    'krr_accuracy', 'krr_accuracy_start'))
print(f'ten random images a class: {percent(start)}')
print(f'ten images a class by KIP: {percent(small)}')

# %%
pixels = np.asarray(made.problem.transform.invert(made.learned.examples.x))
notebook.picture(
    figures.side_by_side,
    {'random images': made.problem.start.x.reshape(10, 10, 8, 8, 1)[:, :5],
     'the same after KIP': pixels.reshape(10, 10, 8, 8, 1)[:, :5]},
    list(range(10)), title='What training is about: five images of each ten',
    alt='Two grids of fifty digits, five a class: on the left real ones, on '
        'the right the same after distillation, some still digits, others '
        'grey blurs.')

# %% [markdown]
# ## 3. An attack
#
# Somebody trains a network on twenty digits and publishes its weights from before
# and after. Nothing else is known: no image, no label. `reconstruct.rebuild` plays
# both sides, and only the last line of it, the score, sees the truth. This is the
# second example of the README, in memory.

# %%
attacked = reconstruct.rebuild(reconstruct.Config(
    dataset='digits', regime='standard'))
recovered = attacked.metrics['recovered_rmse_0.01']
claimed = attacked.metrics['claimed'].value
truth = attacked.case.task.train.x
rebuilt = np.clip(scoring.to_pixels(
    attacked.case, attacked.found.candidates), 0, 1)
gaps = match.distances(truth, rebuilt)
notebook.picture(
    figures.pairs, truth, rebuilt[gaps.argmin(axis=1)], gaps.min(axis=1),
    per_row=10, title=f'{recovered.value:.0%} of the training images came back; '
                      f'the attack claims {claimed:.0f}',
    alt='Twenty pairs of digits: each training image above the nearest image '
        'that the attack rebuilt. By eye the two of a pair are equal; the errors '
        'under them are printed.')

# %% [markdown]
# ## 4. An audit
#
# What is a set worth besides its accuracy? Four questions to regression on the
# KIP set, and to regression on all images: how accurate it is on its worst class,
# how it stands up to adversarial noise of 0.1 a pixel, and whether its errors tell
# training images from test images (AUC, 1/2 is guessing). The whole audit, with
# networks, shadow models and a page of its own, is the third example of the README;
# it takes minutes, and writes files.

# %%
distilled = fit(made.learned.examples)
members = problem.examples(problem.train.take(np.arange(len(y_test))))
targets = np.concatenate([
    np.asarray(members.y), np.asarray(problems.encoded(problem.test))])


def audited(predict):
  """Answers for one model: intervals."""
  said = np.asarray(predict(x_test)).argmax(axis=1)
  by_class = fairness.evaluate(key, y_test, said, num_resamples=200)
  model = jax.tree_util.Partial(
      jax.jit(lambda p, z: p(problem.transform.apply(z))), predict)
  worst = pgd.pgd(key, model, problem.test.x[:100], y_test[:100], epsilon=0.1,
                  steps=10)
  stands = np.asarray(model(worst)).argmax(axis=1) == y_test[:100]
  outputs = np.concatenate([
      np.asarray(predict(x)) for x in (members.x, x_test)])
  told = membership.evaluate(
      key, scores.negative_squared_error(outputs, targets),
      np.arange(len(outputs)) < len(members.y)).auc
  return {'accuracy': accuracy_of(predict), 'worst class': by_class.worst,
          'under attack': intervals.wilson(int(stands.sum()), len(stands)),
          'membership, AUC': told}


audits = {'all images': audited(whole), 'ten a class by KIP': audited(distilled)}
notebook.table(
    [{'regression on': name} | {
        question: percent(m) if question != 'membership, AUC' else
        f'{m.value:.2f} [{m.low:.2f}, {m.high:.2f}]'
        for question, m in answers.items()} for name, answers in audits.items()],
    ('regression on', *audits['all images']))

# %% [markdown]
# ## 5. Where to go on
#
# | you want to see | notebook | rooms of the library |
# | --- | --- | --- |
# | why wide networks are kernels | `01_ntk_limit` | `dsr.kernels`, `dsr.krr` |
# | what the attack minimises | `02_attack_is_mmd` | `dsr.attack` |
# | that its answer is unique | `03_unique_at_infinite_width` | `dsr.attack` |
# | what is left of it away from the kernel | `04_deviation_from_the_kernel` | `dsr.studies` |
# | who is rebuilt first | `05_outliers` | `dsr.attack` |
# | that attack and distillation are one | `06_reconstruction_is_distillation` | `dsr.distill` |
# | what defences stop, and what they do not | `07_defences` | `dsr.attack`, `dsr.train`, `dsr.probes` |
# | who was in the training set | `08_membership` | `dsr.probes` |
# | what a cover proves | `09_covers_and_robustness` | `dsr.distill`, `dsr.probes` |
# | what is unfair and what is chance | `10_fairness` | `dsr.probes` |
# | neural-tangents' first programs, on today's JAX | `11_from_neural_tangents` | `dsr.kernels`, `dsr.krr` |
#
# Two things in them that the papers do not have: the witness of wrong candidates,
# a function of the input that shows *where* a network contradicts them
# (`02_attack_is_mmd`); and the ceiling that the theorem of DP-SGD puts on every
# attack on membership, beside the attack that was measured on the same network
# (`07_defences`).
#
# ## What this does not say
#
# - The victim is small, and was trained by plain descent. What other training does
#   to attacks, and on which networks no attack here has rebuilt an image, is in
#   [the results](results.md).
# - An AUC near 1/2 of the simplest attack on membership is no proof of privacy;
#   `08_membership` has a stronger attack.
# - Settings were not tuned here, and one seed was run. Intervals are over test
#   images.
#
# ## Checks

# %%
answers = audits['ten a class by KIP']
notebook.verify(
    notebook.Check('accuracy on all images, lower end', all_images.low,
                   least=0.9),
    notebook.Check('accuracy by KIP above that of its start', small.value
                   - start.value, least=0.01),
    notebook.Check('training images given back, error below 0.01',
                   round(20 * recovered.value), 20, 20),
    notebook.Check('accuracy of the KIP set, from its own regression and from '
                   'the study: difference',
                   abs(answers['accuracy'].value - small.value), most=0.01),
    notebook.Check('membership told by errors on all images, lower end',
                   audits['all images']['membership, AUC'].low, least=0.95),
    notebook.Check('accuracy under attack less accuracy, KIP',
                   answers['under attack'].value - answers['accuracy'].value,
                   most=-0.1))
