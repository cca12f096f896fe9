// A run: one request to one or more models, with one stream for each, so that each can be stopped and resumed alone.

import { del } from '../api.js';

const FINAL_STATES = ['done', 'failed', 'stopped'];

/** One model's answer while it streams. States: waiting, streaming, done, failed, stopped. Fires 'change'. */
export class Answer extends EventTarget {
  state = 'waiting';
  text = '';
  chunks = 0;
  error = null;
  result = null; // {response, metadata} of the envelope
  resumed = 0; // number of resumes on a new connection
  firstTokenMs = null; // measured here, until the server reports it
  elapsedMs = 0;
  #streamId = null;
  #lastSeq = -1;
  #startedAt = performance.now();
  #operation = null;

  constructor(model) {
    super();
    this.model = model;
  }

  get ended() {
    return FINAL_STATES.includes(this.state);
  }

  get runningMs() {
    return this.ended ? this.elapsedMs : performance.now() - this.#startedAt;
  }

  start(connection, request) {
    this.#startedAt = performance.now();
    this.#operation = connection.startOperation({ op: 'infer', model: this.model, resumable: true, ...request }, {
      onMessage: (message) => this.#onMessage(message),
      resumeRequest: () => this.#resumeRequest(),
    });
  }

  /** Stops the stream on the server, also after a resume; the server then ends it with `cancelled`. */
  async stop() {
    if (this.ended) return;
    if (!this.#streamId) {
      this.#operation.cancel();
      this.#end('stopped');
      return;
    }
    try {
      await del(`/api/streams/${encodeURIComponent(this.#streamId)}`);
    } catch (error) {
      // While the server is unreachable the page says so, and the user can stop this later.
      if (error.code !== 'offline') this.#fail(error.message, error.code);
    }
  }

  #resumeRequest() {
    if (!this.#streamId) return null;
    this.resumed += 1;
    this.#emitChange();
    return { op: 'resume', stream_id: this.#streamId, after: this.#lastSeq };
  }

  #onMessage(message) {
    if (message.seq !== undefined) this.#lastSeq = message.seq;
    switch (message.type) {
      case 'start':
        this.#streamId = message.stream_id;
        break;
      case 'chunk':
        this.firstTokenMs ??= performance.now() - this.#startedAt;
        this.state = 'streaming';
        this.chunks += 1;
        this.text += message.delta;
        break;
      case 'result':
        this.result = { response: { ...message.response, content: null }, metadata: message.metadata };
        this.#end('done');
        break;
      case 'error':
        this.#onError(message);
        break;
      case 'complete':
        if (!this.ended) this.#fail('The answer ended without a result.', 'unknown');
        break;
    }
    this.#emitChange();
  }

  #onError({ error, code, retry_after: retryAfter }) {
    if (code === 'slow_reader' && this.#streamId) this.#operation.resume();
    else if (code === 'cancelled') this.#end('stopped');
    else this.#fail(error, code, retryAfter);
  }

  #fail(message, code, retryAfter = null) {
    this.error = { message, code, retryAfter };
    this.#end('failed');
  }

  #end(state) {
    this.elapsedMs = performance.now() - this.#startedAt;
    this.state = state;
    this.#emitChange();
  }

  #emitChange() {
    this.dispatchEvent(new Event('change'));
  }
}

/** The metrics of an answer: measured here, until the server reports them in the result. */
export function answerMetrics(answer) {
  const { response, metadata } = answer.result ?? {};
  const timeToFirstTokenMs = metadata?.time_to_first_token_ms ?? answer.firstTokenMs;
  const durationMs = metadata?.duration_ms ?? answer.runningMs;
  const outputTokens = response?.usage?.output_tokens ?? null;
  const tokenCount = outputTokens ?? answer.chunks;
  const streamingMs = timeToFirstTokenMs === null ? 0 : durationMs - timeToFirstTokenMs;
  return {
    timeToFirstTokenMs,
    durationMs,
    inputTokens: response?.usage?.input_tokens ?? null,
    outputTokens,
    tokensPerSecond: tokenCount > 1 && streamingMs > 0 ? (tokenCount - 1) / (streamingMs / 1000) : null,
    isCounted: outputTokens !== null, // by the provider; else each chunk counts as a token
  };
}

/** One request and its answers. `request` holds the fields of the API, with `frames` only until it is sent. */
export class Run {
  constructor({ request, names, models }) {
    this.id = `${Date.now()}-${Math.random().toString(36).slice(2, 8)}`;
    this.at = new Date().toISOString();
    this.request = request;
    this.names = names; // of the files in `frames`
    this.models = models;
    this.answers = models.map((model) => new Answer(model));
  }

  get ended() {
    return this.answers.every((answer) => answer.ended);
  }

  start(connection) {
    for (const answer of this.answers) answer.start(connection, this.request);
    this.request = { ...this.request, frames: [] }; // sent already, and large
  }

  stop() {
    for (const answer of this.answers) answer.stop();
  }
}
