"""What a notebook shows: pictures that say what they show, tables, checks.

Each is an object that Jupyter displays when it is the last value of a cell, by
`_repr_mimebundle_`; IPython itself is not needed. Pictures are those of the
other modules here, which write files: they are drawn into a folder that is
removed at once, and embedded with their alternative text.
"""
import base64
from collections.abc import Callable, Mapping, Sequence
import dataclasses
import html
import io
import math
import pathlib
import tempfile
from typing import Any, NamedTuple

from dsr import checks
from dsr.report import tables

_WIDEST = 960  # Pixels of the page that a picture takes at most.
_COLORS = 256  # Of an embedded picture, which halves its size or better.


@dataclasses.dataclass(frozen=True, repr=False)
class Picture:
  """An embedded picture.

  Attributes:
    png: its file, still or animated.
    alt: what it shows, in words.
    width: pixels of the page that it takes, room allowing.
  """

  png: bytes
  alt: str
  width: int

  def __repr__(self) -> str:
    return self.alt

  def _repr_mimebundle_(self, include=None, exclude=None):
    data = base64.b64encode(self.png).decode('ascii')
    alt = html.escape(self.alt, quote=True)
    # Viewers that show pictures but no HTML take the second; both have `alt`.
    return {
        'text/html': f'<img alt="{alt}" width="{self.width}" '
                     'style="max-width:100%;height:auto" '
                     f'src="data:image/png;base64,{data}">',
        'image/png': data, 'text/plain': self.alt,
    }, {'image/png': {'alt': self.alt, 'width': self.width}}


@dataclasses.dataclass(frozen=True, repr=False)
class Text:
  """Markdown, e.g. a table; `plain` where that cannot be shown."""

  markdown: str
  plain: str

  def __repr__(self) -> str:
    return self.plain

  def _repr_mimebundle_(self, include=None, exclude=None):
    return {'text/markdown': self.markdown, 'text/plain': self.plain}


class Check(NamedTuple):
  """A measured number and the range in which the claim needs it.

  Attributes:
    what: is measured, in words.
    value: that was measured.
    least: that passes; -inf for none.
    most: that passes; inf for none.
  """

  what: str
  value: float
  least: float = -math.inf
  most: float = math.inf

  @property
  def holds(self) -> bool:
    """Whether the value is in the range; NaN never is."""
    return bool(self.least <= self.value <= self.most)

  @property
  def needed(self) -> str:
    """The range in words."""
    if self.least == self.most:
      return f'exactly {self.least:g}'
    if math.isinf(self.least):
      return f'at most {self.most:g}'
    if math.isinf(self.most):
      return f'at least {self.least:g}'
    return f'{self.least:g} to {self.most:g}'


def picture(draw: Callable, *args: Any, alt: str, **kwargs: Any) -> Picture:
  """What `draw(path, *args, **kwargs)` draws, such as `figures.scatter`.

  Args:
    draw: writes a PNG to the path that it gets first.
    *args: further arguments of it.
    alt: what the picture shows, for those who cannot see it.
    **kwargs: likewise.

  Raises:
    ValueError: no `alt`, or as `draw`.
  """
  _check_alt(alt)
  image = _drawn(draw, args, kwargs)
  return Picture(_png([image], None), alt, min(_WIDEST, _shown(image)))


def animation(
    draw: Callable, frames: Sequence[tuple[Sequence, Mapping]], *, alt: str,
    seconds: float = 0.25, hold: float = 2.0) -> Picture:
  """An animated PNG, of one call of `draw` a frame; it repeats for ever.

  What shows no animation shows the last frame alone in its place.

  Args:
    draw: as in `picture`.
    frames: (args, kwargs) of each call; all must give one size.
    alt: as in `picture`.
    seconds: a frame is shown.
    hold: seconds for the last one.

  Raises:
    ValueError: no `alt`, no frame, frames of different sizes, times that are
      not positive, or as `draw`.
  """
  _check_alt(alt)
  checks.positive('seconds', seconds)
  checks.positive('hold', hold)
  if not frames:
    raise ValueError('`frames` must have one at least, got none.')
  images = [_drawn(draw, args, kwargs) for args, kwargs in frames]
  sizes = sorted({image.size for image in images})
  if len(sizes) > 1:
    raise ValueError(f'`frames` must have one size, got {sizes}.')
  times = [1000 * seconds] * (len(images) - 1) + [1000 * hold]
  return Picture(_png(images, times), alt, min(_WIDEST, _shown(images[0])))


def table(rows: Sequence[Mapping[str, Any]],
          columns: Sequence[str | tables.Column]) -> Text:
  """`tables.markdown`, as the value of a cell.

  Raises:
    ValueError: no columns.
  """
  return Text(tables.markdown(rows, columns), tables.render(rows, columns))


def verify(*claims: Check) -> Text:
  """Asserts every check, and returns the table of what was measured.

  Raises:
    ValueError: no check at all.
    AssertionError: some do not hold; it names each with its value.
  """
  if not claims:
    raise ValueError('`claims` must have a check at least, got none.')
  if wrong := [c for c in claims if not c.holds]:
    raise AssertionError('; '.join(
        f'{c.what}: {c.value:.4g}, needed {c.needed}' for c in wrong))
  rows = [{'check': c.what, 'measured': f'{c.value:.4g}', 'needed': c.needed}
          for c in claims]
  return table(rows, ('check', 'measured', 'needed'))


def _check_alt(alt):
  if not alt.strip():
    raise ValueError('`alt` must say what the picture shows, got nothing.')


def _drawn(draw, args, kwargs):
  """The picture as an RGB image of Pillow, in memory."""
  from PIL import Image

  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / 'picture.png'
    draw(path, *args, **kwargs)
    with Image.open(path) as image:
      return image.convert('RGB')


def _shown(image) -> int:
  """Curves are drawn at twice the pixels of a page, image grids at one."""
  return image.width // 2 if image.width >= 1200 else image.width


def _png(images, times) -> bytes:
  """One file; with more than one image, an animation of `times` in ms."""
  from PIL import Image

  width, height = images[0].size
  strip = Image.new('RGB', (width, height * len(images)))
  for i, image in enumerate(images):
    strip.paste(image, (0, i * height))
  palette = strip.quantize(_COLORS)  # One for all frames.
  images = [image.quantize(palette=palette, dither=0) for image in images]
  out = io.BytesIO()
  if times is None:
    images[0].save(out, 'PNG', optimize=True)
  else:  # The last frame stands apart, for viewers without animations.
    images[-1].save(
        out, 'PNG', save_all=True, append_images=images, default_image=True,
        duration=times, loop=0, optimize=True)
  return out.getvalue()
