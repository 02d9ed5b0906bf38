"""Several images in one: the published decoding, by hand."""
import numpy as np
import pytest

from dsr.distill import formations

# From two pixels to four, bilinear between centres, edges continued.
TWO_TO_FOUR = np.array([[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])


def test_a_hand_made_image_is_decoded_as_published():
  image = np.array([[0, 4, 8, 8],
                    [8, 4, 0, 0],
                    [1, 1, 2, 6],
                    [1, 1, 6, 2]]) / 8
  out = np.asarray(formations.decode(image[None, :, :, None], 2))[..., 0]
  assert out.shape == (4, 4, 4)
  np.testing.assert_allclose(
      8 * out[0], [[0, 1, 3, 4], [2, 2.5, 3.5, 4], [6, 5.5, 4.5, 4],
                   [8, 7, 5, 4]], atol=1e-12)
  for tile, rows, columns in ((1, 0, 2), (2, 2, 0), (3, 2, 2)):
    part = image[rows:rows + 2, columns:columns + 2]
    np.testing.assert_allclose(
        out[tile], TWO_TO_FOUR @ part @ TWO_TO_FOUR.T, atol=1e-12)


def test_what_the_factor_does_not_divide_is_filled_up_with_grey():
  image = np.arange(9.0).reshape(3, 3)
  weights = np.array([[1, 0], [0.5, 0.5], [0, 1]])
  filled = np.full((4, 4), 0.5)
  filled[:3, :3] = image
  out = np.asarray(formations.decode(image[None, :, :, None], 2))[..., 0]
  for k, (i, j) in enumerate(((0, 0), (0, 2), (2, 0), (2, 2))):
    np.testing.assert_allclose(
        out[k], weights @ filled[i:i + 2, j:j + 2] @ weights.T, atol=1e-12)


def test_the_decoded_set_is_class_by_class_and_in_range():
  x = np.stack([np.full((2, 2, 1), value) for value in (0.1, 0.2, -1, 0.4)])
  y = np.eye(2)[[0, 0, 1, 1]]
  out = formations.decode_classes(x, y, 2, 2)
  np.testing.assert_allclose(
      np.asarray(out.x)[:, 0, 0, 0], [0.1, 0.2] * 4 + [0, 0.4] * 4)
  np.testing.assert_array_equal(out.y, np.eye(2)[[0] * 8 + [1] * 8])
  same = formations.decode_classes(x, y, 1, 2)
  np.testing.assert_allclose(same.x, np.clip(x, 0, 1))
  np.testing.assert_array_equal(same.y, y)


def test_a_mixed_start_holds_small_copies():
  images = np.random.default_rng(0).uniform(size=(8, 5, 4, 1))
  out = formations.mixed(images, 2)
  assert out.shape == (2, 5, 4, 1)
  rows, columns = ([0, 1, 3], [0, 2]), [0, 2]  # 5 = 3 + 2 rows.
  for n in range(2):
    np.testing.assert_array_equal(
        out[n, :3, :2], images[n][rows[0]][:, columns])
    np.testing.assert_array_equal(
        out[n, :3, 2:], images[2 + n][rows[0]][:, columns])
    np.testing.assert_array_equal(
        out[n, 3:, 2:], images[6 + n][rows[1]][:, columns])


@pytest.mark.errors
def test_refusals():
  with pytest.raises(ValueError, match='`factor` must be an integer'):
    formations.decode(np.zeros((1, 4, 4, 1)), 0)
  with pytest.raises(ValueError, match='`x` must have shape'):
    formations.decode(np.zeros((1, 4)), 2)
  with pytest.raises(ValueError, match='`images` must be a multiple of 4'):
    formations.mixed(np.zeros((3, 4, 4, 1)), 2)
