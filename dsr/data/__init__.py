"""Data on the host: sources, tasks, labels, transforms, augmentations."""
from dsr.data import (
  augment as augment,
  files as files,
  folders as folders,
  labels as labels,
  released as released,
  siamese as siamese,
  sources as sources,
  tasks as tasks,
  transforms as transforms,
)
from dsr.data.digest import digest as digest
from dsr.data.distilled import (
    Distilled as Distilled,
    load_distilled as load_distilled,
)
from dsr.data.labels import decode as decode, encode as encode
from dsr.data.sources import Splits as Splits, known as known, load as load
from dsr.data.tasks import (
  balanced_rows as balanced_rows,
  balanced_subset as balanced_subset,
  binary as binary,
  split as split,
  subset_classes as subset_classes,
)
from dsr.data.transforms import Transform as Transform, map_host as map_host
