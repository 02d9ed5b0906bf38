"""The report of an audit: from the records of its parts to a page."""
import pathlib

from dsr.report import page as page_lib, tables
from dsr.runs import pictures, records
from dsr.studies.audit import (
  cells,
  given_back,
  overview,
  privacy,
  sections as audit_sections,
  terms,
  under_attack,
)
from dsr.studies.audit.results import Results, attack_of
from dsr.studies.distillation import names as names_lib


def build(results: Results, found: dict[tuple[str, str], cells.Cell]
          ) -> page_lib.Page:
  """The page; its pictures are left to `write`.

  Args:
    results: of an audit, every part of it finished.
    found: of `cells.collect`.
  """
  made = [make(results) for make in audit_sections.SECTIONS]
  sections = [section for section in made if section is not None]
  return page_lib.Page(
      title=f'Audit of {_what(results.config)}', lead=_lead(results),
      sections=sections, facts=_facts(results), footnotes=_FOOTNOTES,
      overview=overview.make(results, found, _evidence(sections)),
      glossary=terms.GLOSSARY)


def _evidence(sections) -> dict[str, str]:
  """Question of the overview -> the table that has its numbers."""
  given = [table.title for section in sections for table in section.tables
           if section.title == given_back.QUESTION]
  return {
      'accuracy': audit_sections.ACCURACY,
      'membership': privacy.STRONGEST['train'],
      'start': privacy.STRONGEST['init'], 'robustness': under_attack.TABLE,
      'worst': audit_sections.EVENNESS, 'rebuilt': ''.join(given[:1])}


def write(results: Results, page: page_lib.Page) -> list[pathlib.Path]:
  """Writes `table.csv`, of the first table, then pictures, then the page.

  A picture that cannot be drawn is missing in `report.html` and `report.md`,
  and named by the record, which must be there already.

  Returns:
    The paths of all.
  """
  folder, table = results.folder, page.sections[0].tables[0]
  csv = tables.write(folder / 'table.csv', table.rows, table.columns)
  # What an earlier call drew shows other numbers.
  for name in results.drawings:
    (folder / name).unlink(missing_ok=True)
  pictures.draw(folder, results.drawings)
  page = page._replace(sections=[section._replace(pictures=[
      p for p in section.pictures if pathlib.Path(p.path).exists()])
                                 for section in page.sections])
  return [page_lib.write_html(folder / 'report.html', page),
          page_lib.write_markdown(folder / 'report.md', page), csv,
          *(pathlib.Path(p.path) for s in page.sections for p in s.pictures)]


def summary(page: page_lib.Page) -> str:
  """What the terminal shows: the first table, and every answer."""
  table = page.sections[0].tables[0]
  lines = [tables.render(table.rows, table.columns, title=table.title), '']
  for section in page.sections:
    lines += [section.title, f'  {section.answer}', '']
  return '\n'.join(lines)


_FOOTNOTES = (
    'Intervals are at 95 %. Those of accuracies and membership cover the '
    'networks trained and the images asked about, as Satterthwaite\'s t, or '
    'Wilson\'s for one model. Each set was made once, with one seed: none '
    'covers other runs of a method.',
    'Settings of the methods are defaults, equal for all sets of a method. '
    'Another setting may be better, and leak otherwise.',
    'Intervals are not corrected for being many: of twenty that hold no '
    'effect, one is expected to miss 0.')


def _what(config) -> str:
  return f'distilled sets of {names_lib.dataset(config.dataset)}'


def _lead(results) -> str:
  config, found = results.config, results.plan.subjects
  sets = [s for s in found.values() if s.method not in ('all', 'dp')]
  models = ' and '.join(['kernel ridge regression', *results.networks])
  first = results.rows('fits')[0]
  missing = results.missing and f' {results.missing} The page leaves them out.'
  return (
      f'{len(sets)} small sets of images that stand for '
      f'{first["extra"]["num_images"]} training images of '
      f'{names_lib.dataset(config.dataset)}, '
      f'and what {models} trained on them give away: how accurate they are, '
      'for whom, what they tell of the training images, and what breaks them; '
      f'beside models of all training images.{missing}')


def _facts(results) -> dict[str, str]:
  config = results.config
  first = results.rows('fits')[0]
  versions = ', '.join(f'{name} {version}'
                       for name, version in first['versions'].items())
  device = first['device']
  images = first['extra']
  data = images.get('data', {'classes': [], 'notes': []})
  more = {'classes': ', '.join(data['classes']),
          'reading': '; '.join(data['notes'])}
  return {
      'dataset': f'{config.dataset}: {images["num_images"]} training images '
                 f'of which sets are made, {images["num_test"]} test images',
      **{name: text for name, text in more.items() if text},
      'models': f'KRR with the kernel {config.kernel}; '
                f'{", ".join(results.networks) or "no networks"}, '
                f'{config.num_networks} starts each, protocol '
                f'{config.protocol}',
      'seed': str(config.seed),
      'versions': versions,
      'device': f'{device["count"]} {device["kind"]} ({device["platform"]})',
      'date': first['date'],
      'command': records.command(config)}


def metrics(results: Results) -> dict[str, records.Metric]:
  """The headline number of every set and model."""
  found = {}
  for stage, names in (
      ('fits', ('accuracy',)),
      ('robustness', ('worst_linf_accuracy', 'corrupted_accuracy')),
      ('fairness', ('worst', 'spread', 'between', 'change_between'))):
    for row in results.rows(stage):
      found |= {f'{row["name"]}_{row["model"]}_{name}': row['metrics'][name]
                for name in names if name in row['metrics']}
  for row in results.rows('membership'):
    for question in ('train', 'init'):
      name = f'{question}_{attack_of(row["model"])}_auc'
      if name in row['metrics']:
        found[f'{row["name"]}_{row["model"]}_{name}'] = row['metrics'][name]
  for name, record in (('leakage', results.leakage), ('claims', results.claims),
                       *((f'lira_{m}', r) for m, r in results.lira.items())):
    if record is not None:
      found |= {f'{name}_{k}': v for k, v in record['metrics'].items()}
  return found

