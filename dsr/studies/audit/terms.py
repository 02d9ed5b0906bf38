"""Words that the page of an audit explains: its glossary, and its attackers."""
from dsr.studies.audit import robustness
from dsr.studies.distillation import evaluation

GLOSSARY = {
    'AUC': 'Area under the ROC curve of an attack on membership: how often it '
           'scores a member above another image. 0.5 is guessing, 1 is sure.',
    'TPR': 'True positive rate: the share of members that an attack finds.',
    'FPR': 'False positive rate: the share of other images that an attack '
           'takes for members.',
    'TPR at 1 % FPR': 'The share of members found by an attack that takes 1 of '
                      '100 other images for a member: what it is sure of. '
                      '1 % is guessing.',
    'ROC': 'Receiver operating characteristic: TPR against FPR, over all '
           'thresholds of an attack.',
    'LiRA': 'Likelihood-ratio attack (arXiv:2112.03570): models with and '
            'without an image, made by the attacker, tell what its score looks '
            'like if it was a member.',
    'RMIA': 'Robust membership inference attack (arXiv:2312.03262): as LiRA, '
            'with other images as a yardstick; needs fewer models.',
    'shadow models': 'Models that an attacker makes as the attacked one was '
                     'made, of images of which he knows who was a member.',
    'advantage': 'The largest difference of TPR and FPR over all thresholds; 0 '
                 'is guessing.',
    'epsilon': 'Of an adversarial attack the radius within which pixels move; '
               'of DP-SGD the privacy budget: the less, the more private.',
    'DP-SGD': 'Training with clipped, noisy gradients (arXiv:1607.00133), '
              'which guarantees how little one image can change the network.',
    'KRR': 'Kernel ridge regression: training of an infinitely wide network '
           'to its end, in closed form.',
    'KIP': 'Kernel inducing points: a distilled set learned so that KRR on it '
           'is right on the training set.',
    'MLP': 'Multilayer perceptron: a fully connected network.',
    'linf': 'Distance of two images by their most different pixel.',
    'l2': 'Distance of two images by the root of the summed squares of pixels.',
    'RMSE': 'Root mean squared error of the pixels, which go from 0 to 1.',
    'SSIM': 'Structural similarity of two images: 1 for equal ones.',
    'deviation beyond chance': 'Standard deviation of the accuracies of the '
                               'classes, without the share that few test '
                               'images cause by themselves.',
    'equalised odds': 'Whether true and false positive rates of each class are '
                      'the same in all groups; difference 0, ratio 1 is even.',
}

MEMBERSHIP = {
    'squared error, loss, confidence and the like':
        'Sees the outputs of a model for an image and its label; knows nothing '
        'of training.',
    'learned attacks': 'Knows of some images besides whether they were '
                       'members, and learns what tells them.',
    'pixel distance, kernel distance, density':
        'Sees the published set alone, and no model.',
    'LiRA, RMIA': 'Knows the method and half of the training images, and '
                  'repeats all of it many times; online with the image asked '
                  'about, offline without.'}
_REBUILDING = {
    'infinite': 'Knows the architecture, and the function that it becomes at '
                'infinite width.',
    'linearized': 'Knows the parameters before and after training of a network '
                  'that is linear around its start.',
    'standard': 'Knows the parameters before and after plain gradient '
                'descent.'}
_BY_OUTPUTS = ('square',)


def adversaries(config) -> dict[str, str]:
  """Names of adversarial attacks -> their threat model, of those made.

  Args:
    config: of an audit: its `attacks` and `corruptions`.
  """
  groups: dict[str, list[str]] = {}
  for name in evaluation.names(config.attacks):
    seen = ('Sees outputs alone' if name in _BY_OUTPUTS else
            'Knows the network and its gradients')
    groups.setdefault(
        f'{seen}; moves pixels within epsilon in '
        f'{robustness.ATTACKS[name].norm}.', []).append(name)
  found = {', '.join(names): text for text, names in groups.items()}
  if evaluation.names(config.corruptions):
    found['common corruptions'] = (
        'Nobody attacks: noise, blur and the like, as cameras make them.')
  return found


def rebuilding(config) -> dict[str, str]:
  """Regime -> threat model, of an audit's `leak_regimes`."""
  return {name: _REBUILDING[name]
          for name in evaluation.names(config.leak_regimes)}
