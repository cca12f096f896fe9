// The WebSocket connection: it carries all operations, reconnects, and resumes each operation where it was.

import { currentKey, keyProtocols, promptForKey } from './api_key.js';
import { fetchKeyStatus, fetchStatus } from './probe.js';

const RECONNECT_DELAYS_MS = [250, 500, 1000, 2000, 4000, 8000];
const IDLE_MS = 30_000; // the server sends something every few seconds; after this its health is checked
const CHECK_INTERVAL_MS = 5_000;
const LOST = 'The connection was lost before the server had taken the request. It may be sent again.';

/** States: 'connecting', 'open', 'lost' (reconnecting). Fires 'state'. */
export class Connection extends EventTarget {
  state = 'connecting';
  #socket = null;
  #operations = new Map(); // by id
  #idCount = 0;
  #failures = 0;
  #reconnectTimer = 0;
  #lastMessageAt = 0;

  constructor() {
    super();
    addEventListener('online', () => this.#reconnectTimer && this.open());
    setInterval(() => this.#checkHealth(), CHECK_INTERVAL_MS);
  }

  open() {
    clearTimeout(this.#reconnectTimer);
    this.#reconnectTimer = 0;
    if (this.#socket) return;
    const url = `${location.protocol.replace('http', 'ws')}//${location.host}/ws`;
    const socket = new WebSocket(url, ['forgeline.v1.json', ...keyProtocols()]);
    this.#socket = socket;
    socket.onopen = () => this.#onOpen();
    socket.onmessage = (event) => this.#onMessage(JSON.parse(event.data));
    socket.onclose = (event) => this.#onClose(socket, event.code);
  }

  /**
   * Starts an operation by sending `request` with a new id. `onMessage` gets every message of the operation.
   * `resumeRequest()` returns the request that resumes it on a new connection, or null where that is impossible: then
   * the operation ends with an error.
   */
  startOperation(request, { onMessage, resumeRequest }) {
    this.#idCount += 1;
    const operation = { id: `t${this.#idCount}`, request, onMessage, resumeRequest, isSent: false };
    this.#operations.set(operation.id, operation);
    if (this.state === 'open') this.#send(operation);
    return { cancel: () => this.#cancel(operation), resume: () => this.#resume(operation) };
  }

  #send(operation) {
    operation.isSent = true;
    this.#socket.send(JSON.stringify({ ...operation.request, id: operation.id }));
    operation.request = null; // it may hold pictures
  }

  /** Sends an operation's resume request, also if the server has ended the operation (a slow reader's). */
  #resume(operation) {
    const request = operation.resumeRequest();
    if (request) {
      this.#operations.set(operation.id, operation);
      if (this.state === 'open') this.#socket.send(JSON.stringify({ ...request, id: operation.id }));
    } else {
      this.#end(operation, { type: 'error', error: LOST, code: 'connection_lost' });
    }
  }

  #end(operation, message) {
    this.#operations.delete(operation.id);
    operation.onMessage(message);
  }

  #cancel(operation) {
    this.#operations.delete(operation.id);
    if (this.state === 'open' && operation.isSent) {
      this.#idCount += 1;
      this.#socket.send(JSON.stringify({ op: 'cancel', id: `c${this.#idCount}`, target: operation.id }));
    }
  }

  #onOpen() {
    this.#failures = 0;
    this.#lastMessageAt = Date.now();
    this.#setState('open');
    for (const operation of [...this.#operations.values()]) {
      if (operation.isSent) this.#resume(operation);
      else this.#send(operation);
    }
  }

  #onMessage(message) {
    this.#lastMessageAt = Date.now();
    const operation = this.#operations.get(message.id);
    if (!operation) return;
    // An error without a position in a stream is final: no operation runs with this id.
    const isFinal = message.type === 'complete' || (message.type === 'error' && message.seq === undefined);
    if (isFinal) this.#operations.delete(operation.id);
    operation.onMessage(message);
  }

  #onClose(socket, code) {
    if (socket !== this.#socket) return;
    this.#socket = null;
    const wasOpen = this.state === 'open';
    if (code === 1009) this.#failUnresumable('The request is larger than this server takes.');
    this.#setState('lost');
    this.#failures += 1;
    const delay = RECONNECT_DELAYS_MS[Math.min(this.#failures, RECONNECT_DELAYS_MS.length) - 1];
    this.#reconnectTimer = setTimeout(() => this.open(), delay * (0.75 + Math.random() / 2));
    if (!wasOpen) this.#promptIfUnauthorized();
  }

  #failUnresumable(error) {
    for (const operation of [...this.#operations.values()]) {
      if (operation.isSent && !operation.resumeRequest()) {
        this.#end(operation, { type: 'error', error, code: 'too_large' });
      }
    }
  }

  /** A browser hides the status of a rejected handshake, so an HTTP probe finds out whether the key is the reason. */
  async #promptIfUnauthorized() {
    const key = currentKey();
    if ((await fetchKeyStatus(key)) === 401 && (await promptForKey(key))) this.open();
  }

  /** A network that is gone closes no socket: after IDLE_MS without a message, probes the server over HTTP. */
  async #checkHealth() {
    if (this.state !== 'open' || Date.now() - this.#lastMessageAt < IDLE_MS) return;
    const socket = this.#socket;
    if ((await fetchStatus('/healthz')) === 0 && socket === this.#socket) {
      socket.onclose = null;
      socket.close();
      this.#onClose(socket, 1006);
    }
  }

  #setState(state) {
    if (this.state === state) return;
    this.state = state;
    this.dispatchEvent(new Event('state'));
  }
}
