// One job: how it stands, what came of it, and its log.

import { h, replace, setAttribute, setText } from '../dom.js';
import { duration, time, words } from '../format.js';
import { LogView } from '../log/view.js';
import { badge, button, facts, setBadge } from '../ui.js';
import { confirmCancel, confirmDeploy } from './confirm.js';
import { JOB_TONES, showProgress } from './lists.js';
import { overrideFacts } from './orders.js';
import { planView } from './plan.js';

const FINISHED = ['succeeded', 'failed', 'cancelled', 'interrupted'];
const TICK_MS = 1000;

export class JobView {
  #job = null;
  #log;
  #timer;
  #title = h('h2', { class: 'job-title' }, 'Job');
  #state = badge('idle', '');
  #bar = h('progress', { 'aria-label': 'Progress' });
  #phase = h('span', { role: 'status' });
  #resources = h('span', {});
  #progress = h('div', { class: 'progress-line' }, this.#bar, h('p', { class: 'dim' }, this.#phase, this.#resources));
  #took = h('span', {});
  #facts = h('div', {});
  #outcome = h('div', { class: 'stack' });
  #cancel = button('Cancel …', () => confirmCancel(this.#job), { kind: 'danger' });
  #deploy;
  #shown = {}; // what the parts were last drawn from, so that none is drawn anew under somebody's selection

  constructor(connection, jobId, { onEnded, onSubmitted }) {
    this.id = jobId;
    const deploy = () => confirmDeploy(this.#job, this.#job.stack_name, onSubmitted);
    this.#deploy = button('Deploy this …', deploy, { kind: 'primary' });
    this.#log = new LogView(connection, jobId, (job) => {
      this.update(job);
      onEnded(job);
    });
    this.element = h('article', { class: 'job stack', 'aria-label': 'Job' },
      h('div', { class: 'card' },
        h('header', { class: 'row between' },
          h('div', { class: 'row grow' }, this.#title, this.#state),
          h('div', { class: 'row' }, this.#deploy, this.#cancel)),
        this.#progress, this.#facts),
      this.#outcome, this.#log.element);
    this.#timer = setInterval(() => this.#showTook(), TICK_MS);
  }

  update(job) {
    this.#job = job;
    setText(this.#title, `${words(job.action)} ${job.preset}${job.dry_run ? ', dry run' : ''}`);
    setBadge(this.#state, JOB_TONES[job.status] ?? 'idle', words(job.status));
    this.#cancel.hidden = FINISHED.includes(job.status);
    this.#deploy.hidden = !(job.dry_run && job.action === 'deploy' && job.status === 'succeeded');
    this.#progress.hidden = job.status !== 'running';
    this.#showProgress(job);
    this.#showTook();
    const { stack_name: stack, region, overrides, started_at: started, result } = job;
    this.#redraw('facts', [stack, region, overrides, started, result?.returncode], () => this.#showFacts(job));
    this.#redraw('outcome', result, () => this.#showOutcome(job));
  }

  goTo(line) {
    this.#log.goTo(line);
  }

  drop() {
    clearInterval(this.#timer);
    this.#log.drop();
  }

  #redraw(part, from, draw) {
    const now = JSON.stringify(from ?? null);
    if (this.#shown[part] === now) return;
    this.#shown[part] = now;
    draw();
  }

  /** The phase is said to screen readers; how many resources are done is there to be asked for. */
  #showProgress(job) {
    showProgress(this.#bar, job);
    const { done, total } = job.progress ?? {};
    setText(this.#phase, job.phase ? words(job.phase) : '');
    const resources = total ? `${done} of ${total} resources` : `${done} resources`;
    setText(this.#resources, done === undefined ? '' : (job.phase ? ' · ' : '') + resources);
  }

  #showTook() {
    const { started_at: started, finished_at: finished } = this.#job ?? {};
    if (started) setText(this.#took, duration((finished ? Date.parse(finished) : Date.now()) - Date.parse(started)));
  }

  #showFacts(job) {
    replace(this.#facts, facts([
      ['Stack', job.stack_name],
      ['Region', job.region],
      ['Created', time(job.created_at)],
      ['Took', job.started_at && this.#took],
      ['Exit code', job.result?.returncode],
      ...overrideFacts(job.overrides),
      ['Job', h('span', { class: 'mono' }, job.job_id)],
    ]));
  }

  #showOutcome({ result, action }) {
    const outputs = Object.entries(result?.outputs ?? {}).map(([name, value]) => [name, mono(value)]);
    replace(this.#outcome,
      result?.error && h('div', { class: 'notice', data: { tone: 'bad' }, role: 'alert' }, h('p', {}, result.error)),
      outputs.length > 0 && h('section', { class: 'card' }, h('h2', {}, 'Outputs'), facts(outputs)),
      result?.plan && planView(result.plan, action));
    setAttribute(this.#outcome, 'hidden', !this.#outcome.firstChild);
  }
}

const mono = (value) => h('span', { class: 'mono' }, String(value));
