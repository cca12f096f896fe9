// The view of one job: its status and progress, its result, and its log.

import { h, replaceChildren, setAttribute, setText } from '../dom.js';
import { formatDuration, formatTime, humanize } from '../format.js';
import { LogView } from '../log/log_view.js';
import { badge, button, descriptionList, setBadge } from '../ui.js';
import { confirmCancel, confirmDeploy } from './confirm_dialogs.js';
import { overrideEntries } from './job_requests.js';
import { planView } from './plan_view.js';
import { JOB_TONES, updateProgressBar } from './sidebar_lists.js';

const FINAL_STATUSES = ['succeeded', 'failed', 'cancelled', 'interrupted'];
const TICK_MS = 1000;

export class JobView {
  #job = null;
  #log;
  #timer;
  #title = h('h2', { class: 'job-title' }, 'Job');
  #statusBadge = badge('idle', '');
  #progressBar = h('progress', { 'aria-label': 'Progress' });
  #phase = h('span', { role: 'status' });
  #resources = h('span', {});
  #progressLine = h('div', { class: 'progress-line' },
    this.#progressBar, h('p', { class: 'dim' }, this.#phase, this.#resources));
  #duration = h('span', {});
  #details = h('div', {});
  #result = h('div', { class: 'stack' });
  #cancelButton = button('Cancel …', () => confirmCancel(this.#job), { variant: 'danger' });
  #deployButton;
  #rendered = {}; // JSON of what each part was last rendered from: a new render would lose a text selection

  constructor(connection, jobId, { onEnded, onSubmitted }) {
    this.id = jobId;
    const deploy = () => confirmDeploy(this.#job, this.#job.stack_name, onSubmitted);
    this.#deployButton = button('Deploy this …', deploy, { variant: 'primary' });
    this.#log = new LogView(connection, jobId, (job) => {
      this.update(job);
      onEnded(job);
    });
    this.element = h('article', { class: 'job stack', 'aria-label': 'Job' },
      h('div', { class: 'card' },
        h('header', { class: 'row between' },
          h('div', { class: 'row grow' }, this.#title, this.#statusBadge),
          h('div', { class: 'row' }, this.#deployButton, this.#cancelButton)),
        this.#progressLine, this.#details),
      this.#result, this.#log.element);
    this.#timer = setInterval(() => this.#renderDuration(), TICK_MS);
  }

  update(job) {
    this.#job = job;
    setText(this.#title, `${humanize(job.action)} ${job.preset}${job.dry_run ? ', dry run' : ''}`);
    setBadge(this.#statusBadge, JOB_TONES[job.status] ?? 'idle', humanize(job.status));
    this.#cancelButton.hidden = FINAL_STATUSES.includes(job.status);
    this.#deployButton.hidden = !(job.dry_run && job.action === 'deploy' && job.status === 'succeeded');
    this.#progressLine.hidden = job.status !== 'running';
    this.#renderProgress(job);
    this.#renderDuration();
    const { stack_name: stack, region, overrides, started_at: started, result } = job;
    const details = [stack, region, overrides, started, result?.returncode];
    this.#renderIfChanged('details', details, () => this.#renderDetails(job));
    this.#renderIfChanged('result', result, () => this.#renderResult(job));
  }

  scrollToLine(line) {
    this.#log.scrollToLine(line);
  }

  dispose() {
    clearInterval(this.#timer);
    this.#log.dispose();
  }

  #renderIfChanged(part, data, render) {
    const json = JSON.stringify(data ?? null);
    if (this.#rendered[part] === json) return;
    this.#rendered[part] = json;
    render();
  }

  /** Only the phase is a live region: screen readers would read every change of the resource count. */
  #renderProgress(job) {
    updateProgressBar(this.#progressBar, job);
    const { done, total } = job.progress ?? {};
    setText(this.#phase, job.phase ? humanize(job.phase) : '');
    const resources = total ? `${done} of ${total} resources` : `${done} resources`;
    setText(this.#resources, done === undefined ? '' : (job.phase ? ' · ' : '') + resources);
  }

  #renderDuration() {
    const { started_at: started, finished_at: finished } = this.#job ?? {};
    if (!started) return;
    const end = finished ? Date.parse(finished) : Date.now();
    setText(this.#duration, formatDuration(end - Date.parse(started)));
  }

  #renderDetails(job) {
    replaceChildren(this.#details, descriptionList([
      ['Stack', job.stack_name],
      ['Region', job.region],
      ['Created', formatTime(job.created_at)],
      ['Took', job.started_at && this.#duration],
      ['Exit code', job.result?.returncode],
      ...overrideEntries(job.overrides),
      ['Job', h('span', { class: 'mono' }, job.job_id)],
    ]));
  }

  #renderResult({ result, action }) {
    const outputs = Object.entries(result?.outputs ?? {}).map(([name, value]) => [name, mono(value)]);
    replaceChildren(this.#result,
      result?.error && h('div', { class: 'notice', data: { tone: 'bad' }, role: 'alert' }, h('p', {}, result.error)),
      outputs.length > 0 && h('section', { class: 'card' }, h('h2', {}, 'Outputs'), descriptionList(outputs)),
      result?.plan && planView(result.plan, action));
    setAttribute(this.#result, 'hidden', !this.#result.firstChild);
  }
}

const mono = (value) => h('span', { class: 'mono' }, String(value));
