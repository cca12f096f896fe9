// What there is and what changes: models, presets and jobs, as the server's feed tells them.

const MOST_CHANGES = 100;
const MOST_JOBS = 200;
const AGAIN_MS = 1000; // before it is asked for again where the server has ended it
const TOPICS = ['models', 'presets', 'jobs'];

/** Keeps the state of every topic. Fires 'models', 'presets', 'jobs'; `ready` once the first snapshot is here. */
export class Feed extends EventTarget {
  ready = false;
  models = new Map(); // by name
  presets = new Map(); // by kind/name: {kind, name, error?}
  jobs = new Map(); // by job_id, newest first
  changes = []; // of presets, newest first: {at, kind, name, change, error?}
  #position = null; // {after, feed} of the last message
  #talk;

  constructor(connection) {
    super();
    this.#talk = connection.talk({ op: 'subscribe', topics: TOPICS }, {
      onMessage: (message) => this.#take(message),
      resume: () => ({ op: 'subscribe', topics: TOPICS, ...this.#position }),
    });
  }

  /** The jobs that a page asked for itself, or has just submitted: told like those of the feed. */
  addJobs(jobs) {
    for (const job of jobs) this.#keepJob(job);
    this.#trimJobs();
    this.#tell('jobs');
  }

  #take(message) {
    if (message.seq !== undefined) this.#position = { after: message.seq, feed: message.feed };
    switch (message.type) {
      case 'snapshot': return this.#begin(message);
      case 'model': return this.#takeModel(message);
      case 'preset': return this.#takePreset(message);
      case 'job': return this.addJobs([message]);
      case 'error': return void setTimeout(() => this.#talk.goOn(), AGAIN_MS);
      default: return undefined; // 'lagged': a snapshot follows
    }
  }

  #begin(snapshot) {
    this.models = new Map((snapshot.models ?? []).map((model) => [model.name, model]));
    this.presets = new Map((snapshot.presets ?? []).map((preset) => [`${preset.kind}/${preset.name}`, preset]));
    const known = this.jobs;
    this.jobs = new Map((snapshot.jobs ?? []).map((job) => [job.job_id, known.get(job.job_id) ?? job]));
    for (const job of snapshot.jobs ?? []) this.#keepJob(job);
    this.#trimJobs();
    this.ready = true;
    TOPICS.forEach((topic) => this.#tell(topic));
  }

  #takeModel(model) {
    if (model.availability === 'removed') this.models.delete(model.name);
    else this.models.set(model.name, { ...this.models.get(model.name), ...model });
    this.#tell('models');
  }

  #takePreset({ kind, name, change, error }) {
    const key = `${kind}/${name}`;
    if (change === 'removed') this.presets.delete(key);
    else this.presets.set(key, { kind, name, ...(error && { error }) });
    this.changes.unshift({ at: new Date().toISOString(), kind, name, change, error });
    this.changes.length = Math.min(this.changes.length, MOST_CHANGES);
    this.#tell('presets');
  }

  #keepJob({ id, type, feed, seq, ...job }) {
    const known = this.jobs.get(job.job_id);
    const isNews = !known || !job.updated_at || job.updated_at >= known.updated_at;
    // A snapshot leaves out the plans: one that is known stays.
    const result = job.result && { ...known?.result, ...job.result };
    if (isNews) this.jobs.set(job.job_id, { ...known, ...job, result });
  }

  #trimJobs() {
    const newestFirst = [...this.jobs.values()].sort((one, other) => (one.created_at < other.created_at ? 1 : -1));
    this.jobs = new Map(newestFirst.slice(0, MOST_JOBS).map((job) => [job.job_id, job]));
  }

  #tell(topic) {
    this.dispatchEvent(new Event(topic));
  }
}
