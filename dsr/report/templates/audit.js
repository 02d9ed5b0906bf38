'use strict';
// Everything below adds to a page that is complete without it.
document.documentElement.classList.add('js');

function button(className, text) {
  const made = document.createElement('button');
  made.type = 'button';
  made.className = className;
  made.textContent = text;
  return made;
}

// Up, down, and back to the order of the file. Gaps stay last either way.
function makeSortable(table) {
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  const original = [...table.tBodies];
  const collator = new Intl.Collator('en', {numeric: true});

  function key(body, column) {
    const cell = body.rows[0].cells[column];
    if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
    return cell.querySelector('.value').textContent.trim();
  }

  function compare(a, b, sign) {
    if (a === '' || b === '') return (a === '') - (b === '');
    if (typeof a !== typeof b) return typeof a === 'number' ? -1 : 1;
    return sign * (typeof a === 'number' ? a - b : collator.compare(a, b));
  }

  heads.forEach((head, column) => {
    const sort = button('sort', '');
    sort.append(...head.childNodes);
    head.append(sort);
    head.setAttribute('aria-sort', 'none');
    sort.addEventListener('click', () => {
      const next = {none: 'ascending', ascending: 'descending',
                    descending: 'none'}[head.getAttribute('aria-sort')];
      heads.forEach((other) => other.setAttribute('aria-sort', 'none'));
      head.setAttribute('aria-sort', next);
      const sign = next === 'ascending' ? 1 : -1;
      const order = next === 'none' ? original : [...original].sort(
          (a, b) => compare(key(a, column), key(b, column), sign));
      table.append(...order);
    });
  });
}

// As a spreadsheet reads it: values and intervals, in the order shown. A text
// that would begin a formula there is quoted by an apostrophe.
function csvOf(table) {
  const quote = (text) => '"' + (/^[=+@\t\r]|^-(?!\d)/.test(text) ? "'" : '')
      .concat(text.replaceAll('"', '""')) + '"';
  const line = (cells) => cells.map(quote).join(',');
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  const parts = ['value', 'interval', 'mark', 'need'].filter(
      (part) => table.querySelector(`.${part}`) || part === 'interval');
  const lines = [line(heads.flatMap((head) => parts.map((part) => (
    head.textContent.trim() + (part === 'value' ? '' : `, ${part}`)))))];
  for (const body of table.tBodies) {
    lines.push(line([...body.rows[0].cells].flatMap((cell) => parts.map(
        (part) => cell.querySelector(`.${part}`)?.textContent.trim() ?? ''))));
  }
  return lines.join('\r\n') + '\r\n';
}

function makeDownloadable(table) {
  const get = button('download', 'Download as CSV');
  table.closest('.scroll').after(get);
  get.addEventListener('click', () => {
    const link = document.createElement('a');
    link.href = URL.createObjectURL(
        new Blob([csvOf(table)], {type: 'text/csv'}));
    link.download = `${table.getAttribute('aria-labelledby')}.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
}

// No line ends inside a flag. Not before it is shown, as commands are many.
function keepWordsWhole(code) {
  code.replaceChildren(...code.textContent.split(/(\s+)/).map((part) => {
    if (!part.trim()) return part;
    const word = document.createElement('span');
    word.textContent = part;
    return word;
  }));
}

function makeExpandable(show) {
  const row = document.getElementById(show.getAttribute('aria-controls'));
  show.hidden = false;
  show.addEventListener('click', () => {
    if (!row.querySelector('.copy')) {
      keepWordsWhole(row.querySelector('code'));
      makeCopyable(row.querySelector('pre'));
    }
    const open = row.classList.toggle('open');
    show.setAttribute('aria-expanded', String(open));
  });
}

function makeCopyable(pre) {
  const copy = button('copy', 'Copy');
  copy.setAttribute('aria-live', 'polite');
  pre.before(copy);
  copy.addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(pre.textContent);
      copy.textContent = 'Copied';
    } catch {  // Not allowed here: then it is at least selected.
      getSelection().selectAllChildren(pre);
      copy.textContent = 'Selected';
    }
    setTimeout(() => { copy.textContent = 'Copy'; }, 2000);
  });
}

function makeZoomable(image) {
  const zoom = button('zoom', '');
  zoom.title = 'Show in full size';
  image.before(zoom);
  zoom.append(image);
  zoom.addEventListener('click', () => {
    const dialog = document.createElement('dialog');
    const close = button('', 'Close');
    close.addEventListener('click', () => dialog.close());
    dialog.addEventListener('close', () => dialog.remove());
    dialog.addEventListener('click', (event) => {
      if (event.target === dialog) dialog.close();
    });
    dialog.append(close, image.cloneNode());
    document.body.append(dialog);
    dialog.showModal();
  });
}

document.addEventListener('DOMContentLoaded', () => {
  document.querySelectorAll('table').forEach(makeSortable);
  document.querySelectorAll('table').forEach(makeDownloadable);
  document.querySelectorAll('.show').forEach(makeExpandable);
  document.querySelectorAll('dd.command code').forEach(keepWordsWhole);
  document.querySelectorAll('dd.command pre').forEach(makeCopyable);
  document.querySelectorAll('figure img').forEach(makeZoomable);
});
