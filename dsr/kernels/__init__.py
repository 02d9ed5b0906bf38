"""Kernels: infinite-width layers, empirical NTKs, and their large matrices."""
from dsr.kernels import empirical, stax
from dsr.kernels.architectures import by_name, convnet, fcn, myrtle
from dsr.kernels.combinators import (
    FanInConcat,
    FanInProd,
    FanInSum,
    FanOut,
    parallel,
)
from dsr.kernels.convolutions import (
    AvgPool,
    Conv,
    GlobalAvgPool,
    GlobalSumPool,
    SumPool,
)
from dsr.kernels.gram import gram
from dsr.kernels.layers import Dense, Flatten, Identity, Layer, Pair, nonlinear
from dsr.kernels.network import Kernels, serial
from dsr.kernels.nonlinearities import (
    Abs,
    ABRelu,
    Erf,
    LeakyRelu,
    Relu,
    Sign,
)

__all__ = [
    'ABRelu', 'Abs', 'AvgPool', 'Conv', 'Dense', 'Erf', 'FanInConcat',
    'FanInProd', 'FanInSum', 'FanOut', 'Flatten', 'GlobalAvgPool',
    'GlobalSumPool', 'Identity', 'Kernels', 'Layer', 'LeakyRelu', 'Pair',
    'Relu', 'Sign', 'SumPool', 'by_name', 'convnet', 'empirical', 'fcn', 'gram',
    'myrtle', 'nonlinear', 'parallel', 'serial', 'stax']
