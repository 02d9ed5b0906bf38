"""What `benchmark` times: sizes, architectures and what we hope to see."""
from experiments.benchmark import attacks as attack_rivals
from experiments.benchmark.kernels import Case

PRODUCTS = (
    Case('fcn2_2000x2000', 'fcn2', 2000, 2000, (784,), goal='ours <= 1.4'),
    Case('fcn2_5000x500', 'fcn2', 5000, 500, (784,), goal='ours <= 1.4'),
)
LOSSES = (  # Rows are targets, columns are support images.
    Case('kip_100', 'fcn1', 5000, 100, (3072,), goal='ours <= 2.1'),
    Case('kip_500', 'fcn1', 5000, 500, (3072,), goal='ours <= 3.6'),
)
_IMAGE = (32, 32, 3)
IMAGES = (
    Case('convnet3_nopool', 'convnet3_nopool', 32, 32, _IMAGE, 32,
         'time >= 1'),
    Case('convnet3', 'convnet3', 12, 12, _IMAGE, 6, 'time >= 6, memory >= 10'),
    Case('myrtle5', 'myrtle5', 12, 12, _IMAGE, 6, 'time >= 6, memory >= 10'),
)
GRAMS = (
    Case('gram_fcn2_20000', 'fcn2', 20_000, 20_000, (784,),
         goal='peak <= 1.3'),
)
STEPS = (  # Rows are training images a class, columns distilled ones.
    Case('dm_mnist_1', 'convnet3', 256, 1, (28, 28, 1), goal='CPU s <= 2.05'),
    Case('dm_mnist_10', 'convnet3', 256, 10, (28, 28, 1), goal='CPU s <= 2.05'),
    Case('dm_cifar10_1', 'convnet3', 256, 1, _IMAGE),
    Case('dm_cifar10_10', 'convnet3', 256, 10, _IMAGE),
)
DISTANCES = (
    Case('distances_6000', 'l2', 6000, 6000, (784,), goal='ours <= 2'),
)
_DIGIT = (28, 28, 1)
_FASTER = 'ours >= 2'
PGD = (
    attack_rivals.Case('pgd_mlp_128', 'pgd', 'mlp', 128, 40, (784,), 0.08),
    attack_rivals.Case(
        'pgd_mlp_512', 'pgd', 'mlp', 512, 40, (784,), 0.08, _FASTER),
    attack_rivals.Case('pgd_lenet_128', 'pgd', 'lenet', 128, 40, _DIGIT, 0.006),
    attack_rivals.Case(
        'pgd_lenet_512', 'pgd', 'lenet', 512, 40, _DIGIT, 0.006, _FASTER),
    attack_rivals.Case(
        'pgd_convnet3_128', 'pgd', 'convnet3', 128, 20, _DIGIT, 0.05, _FASTER),
)
APGD = (
    attack_rivals.Case(
        'apgd_mlp_256', 'apgd', 'mlp', 256, 40, (784,), 0.08, _FASTER),
    attack_rivals.Case(
        'apgd_lenet_256', 'apgd', 'lenet', 256, 40, _DIGIT, 0.006, _FASTER),
    attack_rivals.Case(
        'apgd_convnet3_128', 'apgd', 'convnet3', 128, 20, _DIGIT, 0.05,
        _FASTER),
)
WITHOUT = (  # Rows are examples, columns refits.
    Case('leave_one_out_2000', 'fcn1', 2000, 5, (784,), goal='ours >= 100'),
)
SHADOWS = (  # Columns are shadows.
    Case('shadows_256', 'fcn1', 2000, 256, (784,), goal='s <= 60'),
)
