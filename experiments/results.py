r"""Writes a page of tables from the records of finished runs.

  python -m experiments.results --records=notebooks/records \
    --out=notebooks/results.md

Every record below the folder becomes a row: data, settings, seed, date, device,
and the command that repeats the run. Every metric of it becomes another: what
was claimed, where a published number holds for these settings, ours, and our
95 % interval. Rows are grouped by command. Nothing is computed anew, and other
JSON files and runs that were stopped are left out.

The tables replace what stands between two marks in the page, lines that begin
with `<!-- tables of records`; all that was written by hand around them is kept.
A page that does not exist is made.
"""
from dsr.runs import launch
from dsr.studies import results

if __name__ == '__main__':
  launch.launch(results.Config, results.run)
