// The sidebar lists of the clusters page: presets to deploy, existing stacks, and jobs, newest first.

import { h, KeyedList, setAttribute, setText } from '../dom.js';
import { formatTime, humanize } from '../format.js';
import { badge, button, setBadge } from '../ui.js';
import { jobHref } from './job_requests.js';

export const JOB_TONES = {
  queued: 'idle',
  running: 'busy',
  succeeded: 'ok',
  failed: 'bad',
  cancelled: 'idle',
  interrupted: 'warn',
};

/** A list with a heading, and a text in its place while it is empty. */
class SidebarSection {
  #placeholder = h('p', { class: 'dim small' });
  #list;

  constructor(title, keyOf, createRow) {
    const rows = h('ul', { class: 'side-list' });
    this.#list = new KeyedList(rows, keyOf, createRow);
    const id = `list-${title.toLowerCase()}`;
    this.element = h('section', { 'aria-labelledby': id }, h('h2', { id }, title), this.#placeholder, rows);
  }

  render(items, placeholder) {
    setText(this.#placeholder, placeholder);
    this.#placeholder.hidden = items.length > 0;
    this.#list.render(items);
  }
}

export const createPresetList = () =>
  new SidebarSection('Presets', (preset) => JSON.stringify(preset), createPresetRow);

/** Calls `onDestroy(stack)` when a stack's button is clicked. */
export function createStackList(onDestroy) {
  const createRow = (stack) => createStackRow(stack, onDestroy);
  return new SidebarSection('Standing', (stack) => `${stack.region}/${stack.stack_name}`, createRow);
}

export const createJobList = () => new SidebarSection('Jobs', (job) => job.job_id, createJobRow);

function createPresetRow({ name, description, summary }) {
  const link = h('a', { class: 'side-row', href: `#/clusters/deploy/${encodeURIComponent(name)}` },
    h('span', { class: 'side-title mono clip' }, name),
    h('span', { class: 'dim small clip-2' }, joinParts(description, summary.region)));
  return { element: h('li', {}, link), update: () => markCurrent(link) };
}

function createStackRow(initial, onDestroy) {
  const { stack_name: name } = initial;
  const details = h('span', { class: 'dim small' });
  let stack = initial;
  const props = { class: 'small danger-quiet', 'aria-label': `Destroy ${name}` };
  const destroyButton = button('Destroy …', () => onDestroy(stack), props);
  const title = h('span', { class: 'side-title mono clip', title: name }, name);
  const update = (newStack) => {
    stack = newStack;
    const status = humanize(stack.state) + (stack.since ? ` since ${formatTime(stack.since)}` : '');
    setText(details, joinParts(stack.region, stack.preset, status, stack.serves && `serves ${stack.serves}`));
  };
  const head = h('div', { class: 'row between nowrap' }, title, destroyButton);
  return { element: h('li', { class: 'side-row' }, head, details), update };
}

function createJobRow(initial) {
  const title = `${humanize(initial.action)} ${initial.preset}`;
  const state = badge('idle', '');
  const details = h('span', { class: 'dim small clip' });
  const bar = h('progress', { class: 'thin', 'aria-label': `Progress of ${title}` });
  const link = h('a', { class: 'side-row', href: jobHref(initial) },
    h('span', { class: 'row between nowrap' }, h('span', { class: 'side-title clip' }, title), state), details, bar);
  const update = (job) => {
    setBadge(state, JOB_TONES[job.status] ?? 'idle', humanize(job.status));
    const phase = job.status === 'running' && job.phase && humanize(job.phase);
    setText(details, joinParts(job.dry_run ? 'dry run' : job.stack_name, phase, formatTime(job.created_at)));
    updateProgressBar(bar, job);
    markCurrent(link);
  };
  return { element: h('li', {}, link), update };
}

const joinParts = (...parts) => parts.filter(Boolean).join(' · ');

/** Shows the bar while a job runs: determinate where the total is known, else indeterminate. */
export function updateProgressBar(bar, { status, progress }) {
  bar.hidden = status !== 'running';
  setAttribute(bar, 'max', progress?.total || 1);
  setAttribute(bar, 'value', progress?.total ? Math.min(progress.done, progress.total) : null);
}

function markCurrent(link) {
  const isCurrent = location.hash === link.hash || location.hash.startsWith(`${link.hash}/`);
  setAttribute(link, 'aria-current', isCurrent ? 'true' : null);
}
