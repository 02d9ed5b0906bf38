"""Objects that a notebook displays: what they hold, and what they refuse."""
import base64
import io
import math

import numpy as np
from PIL import Image
import pytest

from dsr.report import figures, notebook


def test_a_picture_is_embedded_with_its_text():
  x = np.linspace(0, 1, 5)
  shown = notebook.picture(
      figures.scatter, x, x**2, xlabel='x', alt='y = x^2, for "x" < 1')
  data, metadata = shown._repr_mimebundle_()
  assert 'alt="y = x^2, for &quot;x&quot; &lt; 1"' in data['text/html']
  assert metadata['image/png']['alt'] == shown.alt
  image = Image.open(io.BytesIO(base64.b64decode(data['image/png'])))
  assert image.format == 'PNG'
  assert image.width == 2 * shown.width
  assert data['image/png'] in data['text/html']


def test_an_animation_has_its_frames_and_ends_on_the_last():
  grids = [np.full((1, 1, 4, 4, 1), value) for value in (0.0, 0.5, 1.0)]
  shown = notebook.animation(
      figures.image_grid, [((g,), {'title': 'step'}) for g in grids],
      alt='a square turns white')
  image = Image.open(io.BytesIO(shown.png))
  assert image.is_animated
  assert image.default_image
  middle = []
  for frame in range(image.n_frames):
    image.seek(frame)
    middle.append(image.convert('L').getpixel((48, 72)))
  assert len(middle) == 4  # What stands still is the last one.
  np.testing.assert_allclose(middle, [255, 0, 127, 255], atol=5)


def test_a_table_is_markdown_and_text():
  table = notebook.table([{'a': 1, 'b': 'x'}], ('a', 'b'))
  shown = table._repr_mimebundle_()
  assert shown['text/markdown'].splitlines()[1] == '| ---: | --- |'
  assert shown['text/plain'] == repr(table)
  assert 'markdown' not in repr(table)  # Jupyter takes it for the plain text.


def test_checks_pass_within_their_range_and_show_what_was_measured():
  text = notebook.verify(
      notebook.Check('an error', 1e-13, most=1e-12),
      notebook.Check('a count', 20, 20, 20),
      notebook.Check('a slope', -0.5, -0.6, -0.4)).markdown
  assert '| an error | 1e-13 | at most 1e-12 |' in text
  assert 'exactly 20' in text
  assert '-0.6 to -0.4' in text


@pytest.mark.parametrize('value', [1.1, math.nan, math.inf])
def test_a_check_out_of_range_is_an_assertion_that_names_it(value):
  with pytest.raises(AssertionError, match='second: .*, needed at most 1'):
    notebook.verify(notebook.Check('first', 0.0, most=1.0),
                    notebook.Check('second', value, most=1.0))


@pytest.mark.errors
@pytest.mark.parametrize(('call', 'message'), [
    (lambda: notebook.picture(figures.scatter, [1.0], [1.0], alt=' '), '`alt`'),
    (lambda: notebook.animation(figures.image_grid, [], alt='a'), '`frames`'),
    (lambda: notebook.animation(figures.image_grid, [
        ((np.zeros((1, k, 4, 4, 1)),), {}) for k in (1, 2)], alt='a'),
     '`frames` must have one size'),
    (lambda: notebook.verify(), '`claims`')])
def test_bad_input_is_refused(call, message):
  with pytest.raises(ValueError, match=message):
    call()
