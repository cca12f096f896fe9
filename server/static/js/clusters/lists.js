// The lists beside a job: presets to deploy, what stands, and the jobs, newest first.

import { h, KeyedList, setAttribute, setText } from '../dom.js';
import { time, words } from '../format.js';
import { badge, button, setBadge } from '../ui.js';
import { addressOf } from './orders.js';

export const JOB_TONES = {
  queued: 'idle',
  running: 'busy',
  succeeded: 'ok',
  failed: 'bad',
  cancelled: 'idle',
  interrupted: 'warn',
};

/** A list with a heading, and a sentence in its place where it is empty. */
class Section {
  #instead = h('p', { class: 'dim small' });
  #list;

  constructor(title, key, make) {
    const rows = h('ul', { class: 'side-list' });
    this.#list = new KeyedList(rows, key, make);
    const id = `list-${title.toLowerCase()}`;
    this.element = h('section', { 'aria-labelledby': id }, h('h2', { id }, title), this.#instead, rows);
  }

  show(items, instead) {
    setText(this.#instead, instead);
    this.#instead.hidden = items.length > 0;
    this.#list.show(items);
  }
}

export const presetList = () => new Section('Presets', (preset) => JSON.stringify(preset), presetRow);

/** `onDestroy` is told the stack. */
export const stackList = (onDestroy) =>
  new Section('Standing', (stack) => `${stack.region}/${stack.stack_name}`, (stack) => stackRow(stack, onDestroy));

export const jobList = () => new Section('Jobs', (job) => job.job_id, jobRow);

function presetRow({ name, description, summary }) {
  const link = h('a', { class: 'side-row', href: `#/clusters/deploy/${encodeURIComponent(name)}` },
    h('span', { class: 'side-title mono clip' }, name),
    h('span', { class: 'dim small clip-2' }, inOneLine(description, summary.region)));
  return { element: h('li', {}, link), update: () => markCurrent(link) };
}

function stackRow(first, onDestroy) {
  const { stack_name: name } = first;
  const about = h('span', { class: 'dim small' });
  let stack = first;
  const props = { class: 'small danger-quiet', 'aria-label': `Destroy ${name}` };
  const destroy = button('Destroy …', () => onDestroy(stack), props);
  const title = h('span', { class: 'side-title mono clip', title: name }, name);
  const update = (now) => {
    stack = now;
    const state = words(now.state) + (now.since ? ` since ${time(now.since)}` : '');
    setText(about, inOneLine(now.region, now.preset, state, now.serves && `serves ${now.serves}`));
  };
  const head = h('div', { class: 'row between nowrap' }, title, destroy);
  return { element: h('li', { class: 'side-row' }, head, about), update };
}

function jobRow(first) {
  const title = `${words(first.action)} ${first.preset}`;
  const state = badge('idle', '');
  const about = h('span', { class: 'dim small clip' });
  const bar = h('progress', { class: 'thin', 'aria-label': `Progress of ${title}` });
  const link = h('a', { class: 'side-row', href: addressOf(first) },
    h('span', { class: 'row between nowrap' }, h('span', { class: 'side-title clip' }, title), state), about, bar);
  const update = (job) => {
    setBadge(state, JOB_TONES[job.status] ?? 'idle', words(job.status));
    const phase = job.status === 'running' && job.phase && words(job.phase);
    setText(about, inOneLine(job.dry_run ? 'dry run' : job.stack_name, phase, time(job.created_at)));
    showProgress(bar, job);
    markCurrent(link);
  };
  return { element: h('li', {}, link), update };
}

const inOneLine = (...parts) => parts.filter(Boolean).join(' · ');

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
