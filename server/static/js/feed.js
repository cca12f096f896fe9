// The change feed: the current models, presets and jobs, and the latest changes of presets, from one subscription.

const MAX_CHANGES = 100;
const MAX_JOBS = 200;
const RESUBSCRIBE_MS = 1000; // after the server has ended the subscription
const TOPICS = ['models', 'presets', 'jobs'];

/** Holds the state of every topic. Fires 'models', 'presets', 'jobs'; `ready` from the first snapshot on. */
export class Feed extends EventTarget {
  ready = false;
  models = new Map(); // by name
  presets = new Map(); // by kind/name: {kind, name, error?}
  jobs = new Map(); // by job_id, newest first
  changes = []; // of presets, newest first: {at, kind, name, change, error?}
  #position = null; // {after, feed} of the last message
  #subscription;

  constructor(connection) {
    super();
    this.#subscription = connection.startOperation({ op: 'subscribe', topics: TOPICS }, {
      onMessage: (message) => this.#onMessage(message),
      resumeRequest: () => ({ op: 'subscribe', topics: TOPICS, ...this.#position }),
    });
  }

  /** Merges jobs that a page has fetched or submitted, as if the feed had sent them. */
  addJobs(jobs) {
    for (const job of jobs) this.#mergeJob(job);
    this.#trimJobs();
    this.#emit('jobs');
  }

  #onMessage(message) {
    if (message.seq !== undefined) this.#position = { after: message.seq, feed: message.feed };
    switch (message.type) {
      case 'snapshot': return this.#applySnapshot(message);
      case 'model': return this.#applyModel(message);
      case 'preset': return this.#applyPreset(message);
      case 'job': return this.addJobs([message]);
      case 'error': return void setTimeout(() => this.#subscription.resume(), RESUBSCRIBE_MS);
      default: return undefined; // 'lagged': a snapshot follows
    }
  }

  #applySnapshot(snapshot) {
    this.models = new Map((snapshot.models ?? []).map((model) => [model.name, model]));
    this.presets = new Map((snapshot.presets ?? []).map((preset) => [`${preset.kind}/${preset.name}`, preset]));
    const previous = this.jobs;
    this.jobs = new Map((snapshot.jobs ?? []).map((job) => [job.job_id, previous.get(job.job_id) ?? job]));
    for (const job of snapshot.jobs ?? []) this.#mergeJob(job);
    this.#trimJobs();
    this.ready = true;
    TOPICS.forEach((topic) => this.#emit(topic));
  }

  #applyModel(model) {
    if (model.availability === 'removed') this.models.delete(model.name);
    else this.models.set(model.name, { ...this.models.get(model.name), ...model });
    this.#emit('models');
  }

  #applyPreset({ kind, name, change, error }) {
    const key = `${kind}/${name}`;
    if (change === 'removed') this.presets.delete(key);
    else this.presets.set(key, { kind, name, ...(error && { error }) });
    this.changes.unshift({ at: new Date().toISOString(), kind, name, change, error });
    this.changes.length = Math.min(this.changes.length, MAX_CHANGES);
    this.#emit('presets');
  }

  #mergeJob({ id, type, feed, seq, ...job }) {
    const previous = this.jobs.get(job.job_id);
    const isNewer = !previous || !job.updated_at || job.updated_at >= previous.updated_at;
    // A snapshot omits plans, so a plan that is known already stays.
    const result = job.result && { ...previous?.result, ...job.result };
    if (isNewer) this.jobs.set(job.job_id, { ...previous, ...job, result });
  }

  #trimJobs() {
    const newestFirst = [...this.jobs.values()].sort((a, b) => (a.created_at < b.created_at ? 1 : -1));
    this.jobs = new Map(newestFirst.slice(0, MAX_JOBS).map((job) => [job.job_id, job]));
  }

  #emit(topic) {
    this.dispatchEvent(new Event(topic));
  }
}
