// One job: how it stands, what came of it, and its log.

import { h, replace, setAttribute, setText } from '../dom.js';
import { duration, time, words } from '../format.js';
import { LogView } from '../log/view.js';
import { badge, button, facts, setBadge } from '../ui.js';
import { confirmCancel, confirmDeploy } from './confirm.js';
import { JOB_TONES, showProgress } from './lists.js';
import { planView } from './plan.js';

const FINISHED = ['succeeded', 'failed', 'cancelled', 'interrupted'];

export class JobView {
  #job = null;
  #shownResult = '';
  #timer;
  #state = badge('idle', '');
  #phase = h('span', { class: 'dim', role: 'status' });
  #bar = h('progress', { 'aria-label': 'Progress' });
  #facts = h('div', {});
  #outcome = h('div', { class: 'stack' });
  #cancel = button('Cancel …', () => confirmCancel(this.#job), { kind: 'danger' });
  #deploy;

  constructor(connection, jobId, { onEnded, onSubmitted }) {
    this.id = jobId;
    this.title = h('h2', { class: 'clip' }, 'Job');
    this.#deploy = button('Deploy this …', () => confirmDeploy(this.#job, this.#job.stack_name, onSubmitted), { kind: 'primary' });
    this.log = new LogView(connection, jobId, (job) => {
      this.update(job);
      onEnded(job);
    });
    this.element = h('article', { class: 'job stack', 'aria-label': 'Job' },
      h('div', { class: 'card' },
        h('header', { class: 'row between' }, h('div', { class: 'row grow' }, this.title, this.#state), h('div', { class: 'row' }, this.#deploy, this.#cancel)),
        h('div', { class: 'progress-line' }, this.#bar, this.#phase), this.#facts),
      this.#outcome, this.log.element);
    this.#timer = setInterval(() => this.#job && this.#showFacts(), 1000);
  }

  update(job) {
    this.#job = job;
    const running = !FINISHED.includes(job.status);
    setText(this.title, `${words(job.action)} ${job.preset}${job.dry_run ? ', dry run' : ''}`);
    setBadge(this.#state, JOB_TONES[job.status] ?? 'idle', words(job.status));
    this.#cancel.hidden = !running;
    this.#deploy.hidden = !(job.dry_run && job.action === 'deploy' && job.status === 'succeeded');
    showProgress(this.#bar, job);
    const { done, total } = job.progress ?? {};
    setText(this.#phase, [running && job.phase && words(job.phase), running && done !== undefined && (total ? `${done} of ${total} resources` : `${done} resources`)].filter(Boolean).join(' · '));
    setAttribute(this.#phase, 'hidden', this.#phase.textContent === '');
    this.#showFacts();
    this.#showOutcome();
  }

  goTo(line) {
    this.log.goTo(line);
  }

  drop() {
    clearInterval(this.#timer);
    this.log.drop();
  }

  #showFacts() {
    const job = this.#job;
    const until = job.finished_at ? Date.parse(job.finished_at) : Date.now();
    const entries = [
      ['Stack', job.stack_name],
      ['Region', job.region],
      ['Created', time(job.created_at)],
      ['Took', job.started_at ? duration(until - Date.parse(job.started_at)) : null],
      ['Exit code', job.result?.returncode ?? null],
      ...Object.entries(job.overrides ?? {}).map(([name, value]) => [name, String(value)]),
      ['Job', h('span', { class: 'mono' }, job.job_id)],
    ];
    const key = JSON.stringify([job.overrides, job.finished_at, entries[3][1]]);
    if (this.#facts.dataset.key === key) return;
    this.#facts.dataset.key = key;
    replace(this.#facts, facts(entries));
  }

  #showOutcome() {
    const { result, action } = this.#job;
    const key = JSON.stringify(result);
    if (key === this.#shownResult) return;
    this.#shownResult = key;
    const outputs = Object.entries(result?.outputs ?? {});
    replace(this.#outcome,
      result?.error && h('div', { class: 'notice', data: { tone: 'bad' }, role: 'alert' }, h('p', {}, result.error)),
      outputs.length > 0 && h('section', { class: 'card' }, h('h2', {}, 'Outputs'), facts(outputs.map(([name, value]) => [name, h('span', { class: 'mono' }, String(value))]))),
      result?.plan && planView(result.plan, action));
    this.#outcome.hidden = !this.#outcome.firstChild;
  }
}
