"""CutMix: boxes, partners and shares, read off images of one value each."""
import jax
import numpy as np
import pytest

from dsr.data import cutmix

N, H, W = 5, 6, 8


def test_boxes_come_from_a_partner_with_their_share_of_the_target():
  value = np.arange(N, dtype=float)
  x = np.broadcast_to(value[:, None, None, None], (N, H, W, 1)).copy()
  y = np.eye(N)
  keys = jax.random.split(jax.random.key(0), 60)
  mixed, targets = (np.asarray(a) for a in jax.jit(jax.vmap(
      lambda key: cutmix.cutmix(key, x, y, 0.5)))(keys))
  shares, partners = [], []
  for image, target in zip(mixed[..., 0], targets):
    changed = image != value[:, None, None]
    box = changed.any(0)  # The partner of at least one image is another.
    partner = np.array([int(i[box][0]) if box.any() else n
                        for n, i in enumerate(image)])
    assert sorted(partner) == [*range(N)]
    rows, columns = np.flatnonzero(box.any(1)), np.flatnonzero(box.any(0))
    filled = len(rows) * len(columns)
    assert box.sum() == filled  # A rectangle.
    np.testing.assert_array_equal(
        image, np.where(box, value[partner][:, None, None],
                        value[:, None, None]))
    share = filled / (H * W)
    np.testing.assert_allclose(
        target, (1 - share) * y + share * y[partner], atol=1e-6)
    shares.append(share)
    partners.append(tuple(partner))
  assert 0.25 < np.mean(np.equal(shares, 0)) < 0.75
  assert max(shares) >= 0.4
  assert len(set(partners)) > 10


@pytest.mark.errors
def test_refusals():
  with pytest.raises(ValueError, match='`probability`'):
    cutmix.cutmix(jax.random.key(0), np.zeros((2, 4, 4, 1)), np.eye(2), 1.5)
  with pytest.raises(ValueError, match='`x` must have shape'):
    cutmix.cutmix(jax.random.key(0), np.zeros((2, 4)), np.eye(2))
