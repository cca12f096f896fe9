// A run: one request to one or several models, each a stream of its own, so that each can be stopped and resumed alone.

import { remove } from '../api.js';

const ENDED = ['done', 'failed', 'stopped'];

/** One model's answer as it comes. States: waiting, streaming, done, failed, stopped. Fires 'change'. */
export class Answer extends EventTarget {
  state = 'waiting';
  text = '';
  chunks = 0;
  error = null;
  result = null; // the envelope's response and metadata
  resumed = 0; // how often it went on over a new connection
  firstTokenMs = null; // as seen here, until the server says it
  elapsedMs = 0;
  #streamId = null;
  #seq = -1;
  #began = performance.now();
  #talk = null;

  constructor(model) {
    super();
    this.model = model;
  }

  get ended() {
    return ENDED.includes(this.state);
  }

  get runningMs() {
    return this.ended ? this.elapsedMs : performance.now() - this.#began;
  }

  ask(connection, request) {
    this.#began = performance.now();
    this.#talk = connection.talk({ op: 'infer', model: this.model, resumable: true, ...request }, {
      onMessage: (message) => this.#take(message),
      resume: () => this.#resume(),
    });
  }

  /** Stops it for good, also where it was resumed: its stream ends on the server, and says so here. */
  async stop() {
    if (this.ended) return;
    if (!this.#streamId) {
      this.#talk.cancel();
      this.#end('stopped');
      return;
    }
    try {
      await remove(`/api/streams/${encodeURIComponent(this.#streamId)}`);
    } catch (error) {
      // Where the server can't be reached the page says so, and this can be stopped once it is back.
      if (error.code !== 'offline') this.#fail(error.message, error.code);
    }
  }

  #resume() {
    if (!this.#streamId) return null;
    this.resumed += 1;
    this.#changed();
    return { op: 'resume', stream_id: this.#streamId, after: this.#seq };
  }

  #take(message) {
    if (message.seq !== undefined) this.#seq = message.seq;
    switch (message.type) {
      case 'start':
        this.#streamId = message.stream_id;
        break;
      case 'chunk':
        this.firstTokenMs ??= performance.now() - this.#began;
        this.state = 'streaming';
        this.chunks += 1;
        this.text += message.delta;
        break;
      case 'result':
        this.result = { response: { ...message.response, content: null }, metadata: message.metadata };
        this.#end('done');
        break;
      case 'error':
        this.#takeError(message);
        break;
      case 'complete':
        if (!this.ended) this.#fail('The answer ended without a result.', 'unknown');
        break;
    }
    this.#changed();
  }

  #takeError({ error, code, retry_after: retryAfter }) {
    if (code === 'slow_reader' && this.#streamId) this.#talk.goOn();
    else if (code === 'cancelled') this.#end('stopped');
    else this.#fail(error, code, retryAfter);
  }

  #fail(message, code, retryAfter = null) {
    this.error = { message, code, retryAfter };
    this.#end('failed');
  }

  #end(state) {
    this.elapsedMs = performance.now() - this.#began;
    this.state = state;
    this.#changed();
  }

  #changed() {
    this.dispatchEvent(new Event('change'));
  }
}

/** The numbers of an answer: measured by the server once it has ended, seen from here before that. */
export function numbersOf(answer) {
  const { response, metadata } = answer.result ?? {};
  const firstMs = metadata?.time_to_first_token_ms ?? answer.firstTokenMs;
  const wholeMs = metadata?.duration_ms ?? answer.runningMs;
  const output = response?.usage?.output_tokens ?? null;
  const pieces = output ?? answer.chunks;
  const writingMs = firstMs === null ? 0 : wholeMs - firstMs;
  return {
    firstMs,
    wholeMs,
    input: response?.usage?.input_tokens ?? null,
    output,
    perSecond: pieces > 1 && writingMs > 0 ? (pieces - 1) / (writingMs / 1000) : null,
    counted: output !== null, // whether the provider counted the tokens; else each piece counts as one
  };
}

/** One request and its answers. `request` holds the fields of the API, with `frames` only until it is sent. */
export class Run {
  constructor({ request, names, models }) {
    this.id = `${Date.now()}-${Math.random().toString(36).slice(2, 8)}`;
    this.at = new Date().toISOString();
    this.request = request;
    this.names = names; // of the files that went with it
    this.models = models;
    this.answers = models.map((model) => new Answer(model));
  }

  get ended() {
    return this.answers.every((answer) => answer.ended);
  }

  start(connection) {
    for (const answer of this.answers) answer.ask(connection, this.request);
    this.request = { ...this.request, frames: [] }; // pictures are large, and have been sent
  }

  stop() {
    for (const answer of this.answers) answer.stop();
  }
}
