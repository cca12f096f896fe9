// The clusters: presets to deploy, what stands, jobs; and the one that is looked at, with its log.

import { get } from '../api.js';
import { h, replace } from '../dom.js';
import { onNextFrame } from '../frames.js';
import { icon } from '../icons.js';
import { emptyState, failedState, loadingState } from '../ui.js';
import { confirmDestroy } from './confirm.js';
import { DeployForm } from './deploy_form.js';
import { JobView } from './job_view.js';
import { JobList, PresetList, StackList } from './lists.js';
import { addressOf } from './orders.js';

export function createClusters(connection, feed) {
  const clusters = new Clusters(connection, feed);
  return { element: clusters.element, show: (rest) => clusters.show(rest), hide: () => clusters.hide() };
}

class Clusters {
  #connection;
  #feed;
  #catalogue = null; // by name
  #stacks = [];
  #where = [];
  #shown = ''; // what the detail shows, so that it is not built anew for nothing
  #job = null; // the JobView that is shown
  #hidden = true;
  #problem = null;
  #finished = ''; // the jobs that have ended, as they were last seen
  #line; // the one that the address names
  #lists = { presets: new PresetList(), stacks: new StackList((stack) => confirmDestroy(stack, this.#onSubmitted)), jobs: new JobList() };
  #detail = h('div', { class: 'clusters-detail', tabindex: -1 });
  #onSubmitted = (job) => {
    this.#feed.addJobs([job]);
    location.hash = addressOf(job);
  };

  constructor(connection, feed) {
    this.#connection = connection;
    this.#feed = feed;
    const side = h('div', { class: 'clusters-side' }, this.#lists.presets.element, this.#lists.stacks.element, this.#lists.jobs.element);
    this.element = h('div', { class: 'clusters' }, h('h1', { class: 'visually-hidden' }, 'Clusters'), side, this.#detail);
    const draw = () => this.#draw();
    feed.addEventListener('jobs', () => onNextFrame(draw));
    feed.addEventListener('presets', () => this.#look());
  }

  show(where) {
    const first = this.#hidden;
    this.#hidden = false;
    this.#where = where;
    if (first) this.#look();
    this.#draw();
  }

  hide() {
    this.#hidden = true;
    this.#leave();
  }

  /** Asks for what the feed does not tell whole: the catalogue, and what stands. */
  async #look() {
    if (this.#hidden) return;
    try {
      const [presets, stacks] = await Promise.all([get('/api/hyperpod/presets'), get('/api/hyperpod/stacks')]);
      this.#catalogue = new Map(presets.catalogue.map((preset) => [preset.name, preset]));
      this.#stacks = stacks.stacks;
      this.#problem = null;
    } catch (error) {
      this.#problem = error;
    }
    this.#draw();
  }

  #draw() {
    if (this.#hidden) return;
    const jobs = [...this.#feed.jobs.values()];
    this.#lookAgainAfter(jobs);
    const presets = [...(this.#catalogue?.values() ?? [])];
    this.#lists.presets.show(presets, this.#catalogue ? 'None: save one as presets/hyperpod/NAME.yaml.' : (this.#problem?.message ?? 'Loading …'));
    this.#lists.stacks.show(this.#stacks);
    this.#lists.jobs.show(jobs);
    this.element.classList.toggle('has-detail', this.#where.length > 0);
    this.#drawDetail();
  }

  /** A job that ends may leave a stack, or take one away. */
  #lookAgainAfter(jobs) {
    const finished = jobs.filter((job) => job.finished_at && !job.dry_run).map((job) => job.job_id).join();
    if (finished !== this.#finished) {
      this.#finished = finished;
      this.#look();
    }
  }

  #drawDetail() {
    const [kind, name, line] = this.#where;
    const wanted = [kind, name].join('/');
    if (wanted === this.#shown && this.#job) this.#updateJob(line);
    if (wanted === this.#shown) return;
    if (kind === 'deploy' && !this.#catalogue && !this.#problem) return void this.#place(null, loadingState('Loading the preset …'));
    this.#leave();
    this.#shown = wanted;
    scrollTo(0, 0);
    if (kind === 'jobs' && name) this.#showJob(name, line);
    else if (kind === 'deploy') this.#showForm(name);
    else this.#place(null, emptyState('Nothing chosen', 'Choose a preset to see what it would make, or a job to follow its log.'));
  }

  #showForm(name) {
    const preset = this.#catalogue?.get(name);
    if (preset) return this.#place('Clusters', new DeployForm(preset, this.#onSubmitted).element);
    this.#shown = ''; // it may come
    if (this.#problem) return this.#place('Clusters', failedState(this.#problem, () => this.#look()));
    return this.#place('Clusters', emptyState('No such preset', `No preset is called ${name}: it may have been renamed or removed.`));
  }

  #showJob(id, line) {
    this.#job = new JobView(this.#connection, id, { onEnded: (job) => this.#feed.addJobs([job]), onSubmitted: this.#onSubmitted });
    this.#place('Clusters', this.#job.element);
    this.#updateJob(line);
    if (!this.#feed.jobs.has(id)) this.#fetchJob(id);
  }

  #updateJob(line) {
    const job = this.#feed.jobs.get(this.#job.id);
    if (job) this.#job.update(job);
    const number = Number.parseInt(line?.slice(1), 10);
    if (number > 0 && this.#line !== line) this.#job.goTo(number);
    this.#line = line;
  }

  /** One that is older than what the feed tells of. */
  async #fetchJob(id) {
    try {
      const { job } = await get(`/api/hyperpod/jobs/${encodeURIComponent(id)}`);
      if (this.#job?.id === id) this.#job.update(job);
    } catch (error) {
      if (this.#job?.id !== id) return;
      this.#leave();
      this.#shown = `jobs/${id}`;
      this.#place('Clusters', failedState(error));
    }
  }

  #place(back, content) {
    const link = back && h('a', { class: 'back', href: '#/clusters' }, icon('back'), back);
    replace(this.#detail, link, content);
    // On a narrow screen the list that was clicked in is hidden now: the focus goes on to what is shown.
    if (document.activeElement?.closest('.clusters-side') && !document.activeElement.offsetParent) this.#detail.focus();
  }

  #leave() {
    this.#job?.drop();
    this.#job = null;
    this.#line = undefined;
    this.#shown = '';
    replace(this.#detail);
  }
}
