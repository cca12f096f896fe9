// The lists beside a job: presets to deploy, what stands, and the jobs, newest first.

import { h, KeyedList, setAttribute, setText } from '../dom.js';
import { time, words } from '../format.js';
import { badge, button, setBadge } from '../ui.js';
import { addressOf } from './orders.js';

export const JOB_TONES = { queued: 'idle', running: 'busy', succeeded: 'ok', failed: 'bad', cancelled: 'idle', interrupted: 'warn' };

/** A list with a heading, and a sentence where it is empty. */
class Section {
  #empty;
  #list;

  constructor(title, empty, key, make) {
    const rows = h('ul', { class: 'side-list' });
    this.#empty = h('p', { class: 'dim small' }, empty);
    this.#list = new KeyedList(rows, key, make);
    const id = `list-${title.toLowerCase().replaceAll(' ', '-')}`;
    this.element = h('section', { 'aria-labelledby': id }, h('h2', { id }, title), this.#empty, rows);
  }

  show(items, empty) {
    if (empty !== undefined) setText(this.#empty, empty);
    this.#empty.hidden = items.length > 0;
    this.#list.show(items);
  }
}

export class PresetList extends Section {
  constructor() {
    super('Presets', 'Loading …', (preset) => JSON.stringify(preset), (preset) => {
      const link = h('a', { class: 'side-row', href: `#/clusters/deploy/${encodeURIComponent(preset.name)}` },
        h('span', { class: 'side-title mono clip' }, preset.name), h('span', { class: 'dim small clip-2' }, [preset.description, preset.summary.region].filter(Boolean).join(' · ')));
      return { element: h('li', {}, link), update: () => markCurrent(link) };
    });
  }
}

export class StackList extends Section {
  constructor(onDestroy) {
    super('Standing', 'Nothing: no live deploy has left a stack.', (stack) => `${stack.region}/${stack.stack_name}`, (first) => {
      const title = h('span', { class: 'side-title mono clip', title: first.stack_name }, first.stack_name);
      const about = h('span', { class: 'dim small' });
      let stack = first;
      const destroy = button('Destroy …', () => onDestroy(stack), { class: 'small danger-quiet', 'aria-label': `Destroy ${first.stack_name}` });
      return {
        element: h('li', { class: 'side-row' }, h('div', { class: 'row between nowrap' }, title, destroy), about),
        update(now) {
          stack = now;
          setText(about, [now.region, now.preset, words(now.state) + (now.since ? ` since ${time(now.since)}` : ''), now.serves && `serves ${now.serves}`].filter(Boolean).join(' · '));
        },
      };
    });
  }
}

export class JobList extends Section {
  constructor() {
    super('Jobs', 'No job has been submitted yet. Choose a preset and make a dry run: it makes nothing.', (job) => job.job_id, (first) => {
      const state = badge('idle', '');
      const about = h('span', { class: 'dim small clip' });
      const title = `${words(first.action)} ${first.preset}`;
      const bar = h('progress', { class: 'thin', 'aria-label': `Progress of ${title}` });
      const link = h('a', { class: 'side-row', href: addressOf(first) }, h('span', { class: 'row between nowrap' }, h('span', { class: 'side-title clip' }, title), state), about, bar);
      return {
        element: h('li', {}, link),
        update(job) {
          setBadge(state, JOB_TONES[job.status] ?? 'idle', words(job.status));
          setText(about, [job.dry_run ? 'dry run' : job.stack_name, job.phase && job.status === 'running' ? words(job.phase) : null, time(job.created_at)].filter(Boolean).join(' · '));
          showProgress(bar, job);
          markCurrent(link);
        },
      };
    });
  }
}

/** A bar while a job runs: how much is done where that is known, or only that it goes on. */
export function showProgress(bar, { status, progress }) {
  bar.hidden = status !== 'running';
  setAttribute(bar, 'max', progress?.total || 1);
  setAttribute(bar, 'value', progress?.total ? Math.min(progress.done, progress.total) : null);
}

function markCurrent(link) {
  const isHere = location.hash === link.hash || location.hash.startsWith(`${link.hash}/`);
  setAttribute(link, 'aria-current', isHere ? 'true' : null);
}
