"""Folders of pictures, a folder for each class.

  ROOT/train/CLASS/*.png with ROOT/test/CLASS/*.png (or `val`), or ROOT/CLASS/*
  alone: then 20 % of each class, drawn with the seed, are the test set.

Classes have the names of their folders, in the order of their names, or of
numbers where all are numbers. Files are read by Pillow, which Matplotlib
brings; those with other suffixes than pictures have are left alone.
"""
from collections import Counter
import functools
import hashlib
import os
import pathlib
import re
from typing import NamedTuple

import jax
import numpy as np

from dsr import checks
from dsr.data import arrays, classes as classes_lib, tasks
from dsr.data.arrays import Splits
from dsr.types import Dataset

_SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif', '.tiff',
             '.webp')
_TESTS = ('test', 'val', 'valid', 'validation')  # The first that is there.
_TEST_FRACTION = 0.2
_GREY = ('1', 'L', 'LA', 'La')  # Modes of Pillow.
_MOST_SIZES = 4  # In a message.
_LARGEST = 4096  # Pixels along a side.


class Pictures(NamedTuple):
  """A folder, read.

  Attributes:
    x: (N, H, W, C), uint8, or float32 in [0, 1] if some have 16 bits.
    y: (N,) classes, in their order.
    classes: their names.
    notes: what had to be decided.
  """

  x: np.ndarray
  y: np.ndarray
  classes: tuple[str, ...]
  notes: tuple[str, ...]


def parse(path: str | os.PathLike) -> tuple[pathlib.Path, int | None]:
  """'pictures@32' -> (the folder, 32); the size is None without '@'.

  Raises:
    ValueError: a size that is no size.
  """
  text = os.fspath(path)
  match = re.fullmatch(r'(.+)@(\d+)', text)
  if match is None or pathlib.Path(os.path.expanduser(text)).is_dir():
    return pathlib.Path(os.path.expanduser(text)), None
  checks.within('size after @', int(match[2]), 1, _LARGEST)
  return pathlib.Path(os.path.expanduser(match[1])), int(match[2])


def is_folder(path: str | os.PathLike) -> bool:
  """Whether `path`, perhaps with a size, is a folder that is there."""
  return parse(path)[0].is_dir()


def state(folder: pathlib.Path) -> str:
  """Changes when a file in `folder` does: names, sizes and dates, hashed."""
  found = hashlib.sha256()
  for path in _below(folder):
    stat = path.stat()
    found.update(repr((str(path), stat.st_size, stat.st_mtime_ns)).encode())
  return found.hexdigest()


def files_of(folder: pathlib.Path) -> list[pathlib.Path]:
  """All pictures in `folder` and below, in the order of their paths."""
  return [path for path in _below(folder) if path.suffix.lower() in _SUFFIXES]


def classes_of(folder: pathlib.Path) -> list[str]:
  """Names of the folders in `folder`, in order; [] if none has a picture."""
  if not folder.is_dir():
    return []
  names = [p.name for p in folder.iterdir() if p.is_dir()
           and not p.name.startswith(('.', '__'))]
  if not any(files_of(folder / n) for n in names):
    return []
  number = all(n.isascii() and n.isdecimal() for n in names)
  return sorted(names, key=(lambda n: (int(n), n)) if number else None)


def load(name: str, path: str | os.PathLike, *, seed: int = 0) -> Splits:
  """The training and test pictures of a folder; see the module's text.

  Args:
    name: of the argument, for messages.
    path: of the folder, perhaps with '@' and a size, as of `read`.
    seed: of the split, where there is no folder of test pictures.

  Raises:
    ValueError: no such folders, or as `read`.
  """
  root, size = parse(path)
  part, test = root, None
  if classes_of(root / 'train'):
    part = root / 'train'
    test = next((root / t for t in _TESTS if classes_of(root / t)), None)
  found = read(name, part, size=size)
  title = os.fspath(path)
  whole = Dataset(arrays.pixels(name, found.x), found.y, len(found.classes),
                  title, found.classes, found.notes)
  if test is None:
    counts = np.bincount(found.y)
    if counts.min() < 2:
      raise ValueError(
          f'`{name}` must have two pictures of each class or more, so that one '
          f'can be tested on, got {counts.min()} of '
          f'{found.classes[counts.argmin()]!r}.')
    note = (f'{_TEST_FRACTION:.0%} of the pictures of each class, drawn with '
            f'seed {seed}, are the test set')
    rest, part = tasks.split(jax.random.key(seed), whole, _TEST_FRACTION)
    return Splits(*(Dataset(d.x, d.y, d.num_classes, title, d.classes,
                            (*d.notes, note)) for d in (rest, part)))
  other = read(name, test, size=size, classes=found.classes)
  x = arrays.pixels(name, other.x)
  if x.shape[1:] != whole.x.shape[1:]:
    raise ValueError(
        f'`{name}` must have test pictures of {whole.x.shape[1:]}, as those of '
        f'the training set, got {x.shape[1:]} in {test}.')
  return Splits(whole, Dataset(x, other.y, whole.num_classes, title,
                               whole.classes, whole.notes))


def read(name: str, folder: pathlib.Path, *, size: int | None = None,
         classes: tuple[str, ...] | None = None) -> Pictures:
  """All pictures of the folders in `folder`, of which each is a class.

  Pictures are grey where all are, else in colour. With `size` each is cropped
  to a square around its middle and resized to `size` x `size`.

  Args:
    name: of the argument, for messages.
    folder: with a folder for each class.
    size: pixels along a side; unset: all must have one size.
    classes: names that folders must have; unset: those that they have.

  Raises:
    ValueError: no folders of classes, one without pictures or with another
      name, a picture that cannot be read, or pictures of several sizes.
  """
  if not classes_of(folder):
    raise ValueError(f'`{name}` must hold a folder of pictures for each class, '
                     f'as in {folder}/cat/1.png, got none in {folder}.')
  return _read(name, folder, size, classes, state(folder))


@functools.lru_cache(maxsize=4)  # Decoded once a process.
def _read(name, folder, size, classes, state) -> Pictures:
  del state
  found = classes_of(folder)
  paths = [(path, c) for c in found for path in files_of(folder / c)]
  if empty := [c for c in found if not files_of(folder / c)]:
    raise ValueError(f'`{name}` must have pictures of each class '
                     f'({", ".join(_SUFFIXES)}), got none in '
                     f'{folder / empty[0]}.')
  images = [_picture(name, path, size) for path, _ in paths]
  sizes = Counter(image.shape[:2] for image in images)
  if len(sizes) > 1:
    told = ', '.join(f'{h} x {w} ({n})' for (h, w), n in sizes.most_common(
        _MOST_SIZES)) + ', ...' * (len(sizes) > _MOST_SIZES)
    raise ValueError(
        f'`{name}` must have pictures of one size, those in {folder} have '
        f'{told}; a size after the path crops each to a square and resizes '
        f'it: {folder}@32.')
  notes, channels = [], {image.shape[2] for image in images}
  if len(channels) > 1:
    notes.append('grey pictures were made colour, as some are')
    images = [np.repeat(i, 3, 2) if i.shape[2] == 1 else i for i in images]
  if len({image.dtype for image in images}) > 1:
    images = [i / np.float32(255) if i.dtype == np.uint8 else i
              for i in images]
  if size is not None:
    notes.append(f'pictures were cropped to squares and resized to {size} x '
                 f'{size}')
  x, names = np.stack(images), tuple(classes or found)
  x.setflags(write=False)
  y = classes_lib.look_up(name, np.array([c for _, c in paths]), names)
  return Pictures(x, y, names, tuple(notes))


def _picture(name, path, size) -> np.ndarray:
  """(H, W, 1) or (H, W, 3), uint8 or, of 16 bits, float32 in [0, 1]."""
  from PIL import Image, ImageOps

  try:
    with Image.open(path) as image:
      image = ImageOps.exif_transpose(image)
      if image.mode.startswith('I'):
        image = Image.fromarray(np.asarray(image, np.float32) / 65535)
      elif image.mode != 'RGB':
        image = image.convert('L' if image.mode in _GREY else 'RGB')
      if size is not None:
        image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
      pixels = np.asarray(image)
  except Exception as error:  # Of every decoder that Pillow has.
    reason = str(error).partition('\n')[0] or type(error).__name__
    raise ValueError(f'`{name}` must have pictures that can be read, {path} '
                     f'cannot: {reason}.') from error
  return pixels[..., None] if pixels.ndim == 2 else pixels


def _below(folder) -> list[pathlib.Path]:
  found = []
  for where, folders, names in os.walk(folder):
    folders[:] = sorted(f for f in folders if not f.startswith('.'))
    found += [pathlib.Path(where, n) for n in names if not n.startswith('.')]
  return sorted(found)
