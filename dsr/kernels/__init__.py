"""Kernels: infinite-width layers, empirical NTKs, and their large matrices."""
from dsr.kernels.architectures import by_name, convnet, fcn, myrtle
from dsr.kernels.gram import gram
from dsr.kernels.layers import (
    AvgPool,
    Conv,
    Dense,
    Flatten,
    GlobalAvgPool,
)
from dsr.kernels.network import serial
from dsr.kernels.nonlinearities import Erf, Relu

__all__ = ['AvgPool', 'Conv', 'Dense', 'Erf', 'Flatten', 'GlobalAvgPool',
           'Relu', 'by_name', 'convnet', 'fcn', 'gram', 'myrtle', 'serial']
