// The clusters: presets to deploy, what stands, jobs; and the one that is looked at, with its log.

import { oneAtATime } from '../again.js';
import { get } from '../api.js';
import { h, replace } from '../dom.js';
import { onNextFrame } from '../frames.js';
import { icon } from '../icons.js';
import { emptyState, failedState, loadingState } from '../ui.js';
import { confirmDestroy } from './confirm.js';
import { DeployForm } from './deploy_form.js';
import { JobView } from './job_view.js';
import { jobList, presetList, stackList } from './lists.js';
import { addressOf } from './orders.js';

const LOADING = 'Loading …';
const NO_PRESETS = 'None: save one as presets/hyperpod/NAME.yaml.';
const NO_STACKS = 'Nothing: no live deploy has left a stack.';
const NO_JOBS = 'No job has been submitted yet. Choose a preset and make a dry run: it makes nothing.';
const NOTHING_CHOSEN = 'Choose a preset to see what it would make, or a job to follow its log.';

export function createClusters(connection, feed) {
  const clusters = new Clusters(connection, feed);
  return { element: clusters.element, show: (rest) => clusters.show(rest), hide: () => clusters.hide() };
}

class Clusters {
  #connection;
  #feed;
  #catalogue = null; // by name; null until it has been told
  #stacks = [];
  #where = [];
  #shown = ''; // what the detail shows, so that it is not built anew for nothing
  #job = null; // the JobView that is shown
  #hidden = true;
  #problem = null;
  #finished = ''; // the jobs that have ended, as they were last seen
  #line; // the one that the address names
  #presetList = presetList();
  #stackList = stackList((stack) => confirmDestroy(stack, this.#onSubmitted));
  #jobList = jobList();
  #detail = h('div', { class: 'clusters-detail', tabindex: -1 });
  #look = oneAtATime(() => this.#fetchLists());
  #onSubmitted = (job) => {
    this.#feed.addJobs([job]);
    location.hash = addressOf(job);
  };

  constructor(connection, feed) {
    this.#connection = connection;
    this.#feed = feed;
    const lists = [this.#presetList, this.#stackList, this.#jobList].map((list) => list.element);
    const title = h('h1', { class: 'visually-hidden' }, 'Clusters');
    this.element = h('div', { class: 'clusters' }, title, h('div', { class: 'clusters-side' }, lists), this.#detail);
    const draw = () => this.#draw();
    feed.addEventListener('jobs', () => onNextFrame(draw));
    feed.addEventListener('presets', () => !this.#hidden && this.#look());
  }

  show(where) {
    const isFirst = this.#hidden;
    this.#hidden = false;
    this.#where = where;
    if (isFirst) this.#look();
    this.#draw();
  }

  hide() {
    this.#hidden = true;
    this.#leave();
  }

  /** Asks for what the feed does not tell whole: the catalogue, and what stands. */
  async #fetchLists() {
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
    this.#drawLists();
    this.element.classList.toggle('has-detail', this.#where.length > 0);
    this.#drawDetail();
  }

  #drawLists() {
    const jobs = [...this.#feed.jobs.values()];
    this.#lookAgainAfter(jobs);
    const untold = this.#problem?.message ?? LOADING;
    this.#presetList.show([...(this.#catalogue?.values() ?? [])], this.#catalogue ? NO_PRESETS : untold);
    this.#stackList.show(this.#stacks, this.#catalogue ? NO_STACKS : untold);
    this.#jobList.show(jobs, this.#feed.ready ? NO_JOBS : LOADING);
  }

  /** A job that ends may leave a stack, or take one away. */
  #lookAgainAfter(jobs) {
    const finished = jobs.filter((job) => job.finished_at && !job.dry_run).map((job) => job.job_id).join();
    if (finished === this.#finished) return;
    this.#finished = finished;
    this.#look();
  }

  #drawDetail() {
    const [kind, name, line] = this.#where;
    const wanted = kind === 'deploy' ? `${kind}/${name}/${this.#stateOf(name)}` : `${kind}/${name}`;
    if (wanted === this.#shown) return this.#updateJob(line);
    this.#leave();
    this.#shown = wanted;
    scrollTo(0, 0);
    if (kind === 'jobs' && name) return this.#showJob(name, line);
    if (kind === 'deploy') return this.#place('Clusters', this.#form(name));
    return this.#place(null, emptyState('Nothing chosen', NOTHING_CHOSEN));
  }

  /** Of a preset: 'there', 'gone', or why that is not known. */
  #stateOf(name) {
    if (this.#catalogue) return this.#catalogue.has(name) ? 'there' : 'gone';
    return this.#problem ? 'failed' : 'loading';
  }

  #form(name) {
    switch (this.#stateOf(name)) {
      case 'there':
        return new DeployForm(this.#catalogue.get(name), this.#onSubmitted).element;
      case 'gone':
        return emptyState('No such preset', `No preset is called ${name}: it may have been renamed or removed.`);
      case 'failed':
        return failedState(this.#problem, () => this.#look());
      default:
        return loadingState('Loading the preset …');
    }
  }

  #showJob(id, line) {
    const onEnded = (job) => this.#feed.addJobs([job]);
    this.#job = new JobView(this.#connection, id, { onEnded, onSubmitted: this.#onSubmitted });
    this.#place('Clusters', this.#job.element);
    this.#updateJob(line);
    if (!this.#feed.jobs.has(id)) this.#fetchJob(id);
  }

  #updateJob(line) {
    if (!this.#job) return;
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
    const focused = document.activeElement;
    if (focused?.closest('.clusters-side') && !focused.offsetParent) this.#detail.focus();
  }

  #leave() {
    this.#job?.drop();
    this.#job = null;
    this.#line = undefined;
    this.#shown = '';
    replace(this.#detail);
  }
}
