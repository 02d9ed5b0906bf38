"""Labels as files have them, texts or numbers with gaps, and as classes.

Inside the library a class is its index. What a class is called is kept beside
the labels, as `Dataset.classes`, wherever that is more than the index itself.
"""
import numpy as np

from dsr import checks

_MOST_TOLD = 10  # Classes in a note.


def number(name: str, labels: np.ndarray) -> tuple[
    np.ndarray, tuple[str, ...]]:
  """Classes (N,) from 0 on of training labels, and what they are called.

  Args:
    name: of the argument, for the message.
    labels: (N,) integers or texts. Those from 0 on without gaps stay as they
      are and have no names; all others are numbered in their order.

  Raises:
    ValueError: neither integers nor texts, or no vector.
  """
  labels = _texts(labels)
  if labels.dtype.kind != 'U':
    checks.labels(name, np.abs(labels) if labels.dtype.kind == 'i' else labels,
                  np.iinfo(np.int32).max)
  elif labels.ndim != 1:
    raise ValueError(f'`{name}` must be a vector, got shape {labels.shape}.')
  values, index = np.unique(labels, return_inverse=True)
  if labels.dtype.kind != 'U' and np.array_equal(
      values, np.arange(len(values))):
    return labels.astype(np.int32), ()
  return index.astype(np.int32), tuple(map(str, values.tolist()))


def look_up(name: str, labels: np.ndarray, names: tuple[str, ...]
            ) -> np.ndarray:
  """Classes (N,) of labels that are among `names`.

  Raises:
    ValueError: a label is no name of a class.
  """
  labels = _texts(labels)
  if labels.ndim != 1 or labels.dtype.kind not in 'iuU':
    raise ValueError(f'`{name}` must be a vector of integers or texts, got '
                     f'{labels.dtype} {labels.shape}.')
  place = {called: c for c, called in enumerate(names)}
  found = np.array([place.get(str(label), -1) for label in labels.tolist()],
                   np.int32)
  if (found < 0).any():
    raise ValueError(
        f'`{name}` must be of the classes {listed(names)}, got '
        f'{labels[found < 0][0].item()!r}.')
  return found


def note(names: tuple[str, ...]) -> str:
  """How labels became classes, in words."""
  return f'labels {listed(names)} are the classes 0 to {len(names) - 1}'


def listed(names: tuple[str, ...]) -> str:
  """The first names, with commas."""
  more = f', ... ({len(names)})' if len(names) > _MOST_TOLD else ''
  return ', '.join(names[:_MOST_TOLD]) + more


def _texts(labels) -> np.ndarray:
  """Bytes as texts; all else as it is."""
  labels = np.asarray(labels)
  return np.char.decode(labels, 'utf-8', 'replace') if (
      labels.dtype.kind == 'S') else labels
