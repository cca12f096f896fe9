// The clusters page: sidebar lists of presets, stacks and jobs, and the details of the selected preset or job.

import { get } from '../api.js';
import { coalesce } from '../coalesce.js';
import { h, replaceChildren } from '../dom.js';
import { icon } from '../icons.js';
import { scheduleRender } from '../render_queue.js';
import { emptyState, errorState, loadingState } from '../ui.js';
import { confirmDestroy } from './confirm_dialogs.js';
import { DeployForm } from './deploy_form.js';
import { jobHref } from './job_requests.js';
import { JobView } from './job_view.js';
import { createJobList, createPresetList, createStackList } from './sidebar_lists.js';

const LOADING = 'Loading …';
const NO_PRESETS = 'None: save one as presets/hyperpod/NAME.yaml.';
const NO_STACKS = 'Nothing: no live deploy has left a stack.';
const NO_JOBS = 'No job has been submitted yet. Choose a preset and make a dry run: it makes nothing.';
const NOTHING_SELECTED = 'Choose a preset to see what it would make, or a job to follow its log.';

export function createClustersPage(connection, feed) {
  const page = new ClustersPage(connection, feed);
  return { element: page.element, show: (route) => page.show(route), hide: () => page.hide() };
}

class ClustersPage {
  #connection;
  #feed;
  #catalogue = null; // by name; null until it has been fetched
  #stacks = [];
  #route = [];
  #detailKey = ''; // of the rendered details, so that they are created again only for another preset or job
  #jobView = null; // the visible JobView
  #hidden = true;
  #error = null;
  #finishedIds = ''; // of the finished live jobs at the last render
  #shownLine; // the line of the last route
  #presetList = createPresetList();
  #stackList = createStackList((stack) => confirmDestroy(stack, this.#onSubmitted));
  #jobList = createJobList();
  #detail = h('div', { class: 'clusters-detail', tabindex: -1 });
  #refresh = coalesce(() => this.#fetchLists());
  #onSubmitted = (job) => {
    this.#feed.addJobs([job]);
    location.hash = jobHref(job);
  };

  constructor(connection, feed) {
    this.#connection = connection;
    this.#feed = feed;
    const lists = [this.#presetList, this.#stackList, this.#jobList].map((list) => list.element);
    const title = h('h1', { class: 'visually-hidden' }, 'Clusters');
    this.element = h('div', { class: 'clusters' }, title, h('div', { class: 'clusters-sidebar' }, lists), this.#detail);
    const render = () => this.#render();
    feed.addEventListener('jobs', () => scheduleRender(render));
    feed.addEventListener('presets', () => !this.#hidden && this.#refresh());
  }

  show(route) {
    const wasHidden = this.#hidden;
    this.#hidden = false;
    this.#route = route;
    if (wasHidden) this.#refresh();
    this.#render();
  }

  hide() {
    this.#hidden = true;
    this.#clearDetail();
  }

  /** Fetches what the feed lacks: the catalogue and the stacks. */
  async #fetchLists() {
    try {
      const [presets, stacks] = await Promise.all([get('/api/hyperpod/presets'), get('/api/hyperpod/stacks')]);
      this.#catalogue = new Map(presets.catalogue.map((preset) => [preset.name, preset]));
      this.#stacks = stacks.stacks;
      this.#error = null;
    } catch (error) {
      this.#error = error;
    }
    this.#render();
  }

  #render() {
    if (this.#hidden) return;
    this.#renderLists();
    this.element.classList.toggle('has-detail', this.#route.length > 0);
    this.#renderDetail();
  }

  #renderLists() {
    const jobs = [...this.#feed.jobs.values()];
    this.#refreshAfterJobs(jobs);
    const placeholder = this.#error?.message ?? LOADING;
    this.#presetList.render([...(this.#catalogue?.values() ?? [])], this.#catalogue ? NO_PRESETS : placeholder);
    this.#stackList.render(this.#stacks, this.#catalogue ? NO_STACKS : placeholder);
    this.#jobList.render(jobs, this.#feed.ready ? NO_JOBS : LOADING);
  }

  /** A finished job may have created or deleted a stack. */
  #refreshAfterJobs(jobs) {
    const finishedIds = jobs.filter((job) => job.finished_at && !job.dry_run).map((job) => job.job_id).join();
    if (finishedIds === this.#finishedIds) return;
    this.#finishedIds = finishedIds;
    this.#refresh();
  }

  #renderDetail() {
    const [kind, name, line] = this.#route;
    const key = kind === 'deploy' ? `${kind}/${name}/${this.#presetState(name)}` : `${kind}/${name}`;
    if (key === this.#detailKey) return this.#updateJob(line);
    this.#clearDetail();
    this.#detailKey = key;
    scrollTo(0, 0);
    if (kind === 'jobs' && name) return this.#showJob(name, line);
    if (kind === 'deploy') return this.#setDetail('Clusters', this.#deployForm(name));
    return this.#setDetail(null, emptyState('Nothing chosen', NOTHING_SELECTED));
  }

  /** The state of a preset: 'available', 'removed', 'failed' or 'loading'. */
  #presetState(name) {
    if (this.#catalogue) return this.#catalogue.has(name) ? 'available' : 'removed';
    return this.#error ? 'failed' : 'loading';
  }

  #deployForm(name) {
    switch (this.#presetState(name)) {
      case 'available':
        return new DeployForm(this.#catalogue.get(name), this.#onSubmitted).element;
      case 'removed':
        return emptyState('No such preset', `No preset is called ${name}: it may have been renamed or removed.`);
      case 'failed':
        return errorState(this.#error, () => this.#refresh());
      default:
        return loadingState('Loading the preset …');
    }
  }

  #showJob(id, line) {
    const onEnded = (job) => this.#feed.addJobs([job]);
    this.#jobView = new JobView(this.#connection, id, { onEnded, onSubmitted: this.#onSubmitted });
    this.#setDetail('Clusters', this.#jobView.element);
    this.#updateJob(line);
    if (!this.#feed.jobs.has(id)) this.#fetchJob(id);
  }

  #updateJob(line) {
    if (!this.#jobView) return;
    const job = this.#feed.jobs.get(this.#jobView.id);
    if (job) this.#jobView.update(job);
    const number = Number.parseInt(line?.slice(1), 10);
    if (number > 0 && this.#shownLine !== line) this.#jobView.scrollToLine(number);
    this.#shownLine = line;
  }

  /** For a job that is older than those of the feed. */
  async #fetchJob(id) {
    try {
      const { job } = await get(`/api/hyperpod/jobs/${encodeURIComponent(id)}`);
      if (this.#jobView?.id === id) this.#jobView.update(job);
    } catch (error) {
      if (this.#jobView?.id !== id) return;
      this.#clearDetail();
      this.#detailKey = `jobs/${id}`;
      this.#setDetail('Clusters', errorState(error));
    }
  }

  #setDetail(back, content) {
    const link = back && h('a', { class: 'back', href: '#/clusters' }, icon('back'), back);
    replaceChildren(this.#detail, link, content);
    // On a narrow screen the sidebar with the focus is hidden now, so the details get the focus.
    const focused = document.activeElement;
    if (focused?.closest('.clusters-sidebar') && !focused.offsetParent) this.#detail.focus();
  }

  #clearDetail() {
    this.#jobView?.dispose();
    this.#jobView = null;
    this.#shownLine = undefined;
    this.#detailKey = '';
    replaceChildren(this.#detail);
  }
}
