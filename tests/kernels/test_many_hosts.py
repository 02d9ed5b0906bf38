"""The matrix over processes that are connected over loopback: bit by bit."""
import pytest

from tests import hosts


@pytest.mark.parametrize(('num', 'kernel'), [
    (2, 'square'), pytest.param(2, 'fcn1', marks=pytest.mark.slow),
    pytest.param(4, 'square', marks=pytest.mark.slow),
    pytest.param(4, 'fcn1', marks=pytest.mark.slow)])
def test_every_process_has_its_rows_of_the_matrix_of_one(num, kernel):
  hosts.run('tests.kernels.many_hosts:gram', num, kernel)
