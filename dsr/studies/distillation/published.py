"""Published test accuracies, for the tables that stand beside ours.

Of ConvNet-3 trained on the distilled set, by dataset, method and images per
class. CIFAR-10: Table 1 of the PAD paper, which for DM agrees with
arXiv:2110.04181; k-center: the DC-BENCH leaderboard (arXiv:2207.09639), whose
networks are trained with augmentation. MNIST: KIP to a network,
arXiv:2107.13034.
"""

CONVNET3 = {
    'cifar10': {
        'random': {1: 0.154, 10: 0.310, 50: 0.506},
        'dm': {1: 0.260, 10: 0.489, 50: 0.630},
        'kcenter': {1: 0.2516, 10: 0.4149, 50: 0.56},
        'kip': {1: 0.499, 10: 0.627, 50: 0.686},
    },
    'mnist': {'kip': {1: 0.901, 10: 0.975, 50: 0.984}},
}


def accuracy(
    dataset: str, network: str, method: str, images_per_class: int
) -> float | None:
  """The published share, or None where there is none."""
  if network != 'convnet3':
    return None
  return CONVNET3.get(dataset, {}).get(method, {}).get(images_per_class)
