// One WebSocket that carries everything that happens: it comes back by itself, and each talk goes on where it was.

import { askForKey, currentKey, keyProtocols } from './key.js';
import { statusOf, statusOfKey } from './probe.js';

const PAUSES_MS = [250, 500, 1000, 2000, 4000, 8000]; // before each further attempt
const SILENCE_MS = 30_000; // the server says something every few seconds; after this we look whether it is there
const LOOK_MS = 5_000;

/** States: 'connecting', 'open', 'lost' (it tries again). Fires 'state'. */
export class Connection extends EventTarget {
  state = 'connecting';
  #socket = null;
  #talks = new Map();
  #count = 0;
  #failures = 0;
  #retry = 0;
  #heard = 0;

  constructor() {
    super();
    addEventListener('online', () => this.#retry && this.open());
    setInterval(() => this.#look(), LOOK_MS);
  }

  open() {
    clearTimeout(this.#retry);
    this.#retry = 0;
    if (this.#socket) return;
    const address = `${location.protocol.replace('http', 'ws')}//${location.host}/ws`;
    const socket = new WebSocket(address, ['forgeline.v1.json', ...keyProtocols()]);
    this.#socket = socket;
    socket.onopen = () => this.#opened();
    socket.onmessage = (event) => this.#take(JSON.parse(event.data));
    socket.onclose = (event) => this.#closed(socket, event.code);
  }

  /**
   * Begins a talk by sending `first` under an id of its own. `onMessage` gets every message of it. `resume()` returns
   * the message by which it goes on over a new connection, or null where it can't: then it ends with an error.
   */
  talk(first, { onMessage, resume }) {
    this.#count += 1;
    const talk = { id: `t${this.#count}`, first, onMessage, resume, sent: false };
    this.#talks.set(talk.id, talk);
    if (this.state === 'open') this.#send(talk);
    return { cancel: () => this.#cancel(talk), goOn: () => this.#goOn(talk) };
  }

  #send(talk) {
    talk.sent = true;
    this.#socket.send(JSON.stringify({ ...talk.first, id: talk.id }));
    talk.first = null; // it may hold pictures
  }

  /** Sends what makes a talk go on, also one that the server has ended (a slow reader's). */
  #goOn(talk, why = 'The connection was lost before the server had taken the request. It may be sent again.') {
    const message = talk.resume();
    if (message) {
      this.#talks.set(talk.id, talk);
      if (this.state === 'open') this.#socket.send(JSON.stringify({ ...message, id: talk.id }));
    } else {
      this.#end(talk, { type: 'error', error: why, code: 'connection_lost' });
    }
  }

  #end(talk, message) {
    this.#talks.delete(talk.id);
    talk.onMessage(message);
  }

  #cancel(talk) {
    this.#talks.delete(talk.id);
    if (this.state === 'open' && talk.sent) {
      this.#count += 1;
      this.#socket.send(JSON.stringify({ op: 'cancel', id: `c${this.#count}`, target: talk.id }));
    }
  }

  #opened() {
    this.#failures = 0;
    this.#heard = Date.now();
    this.#turn('open');
    for (const talk of [...this.#talks.values()]) {
      if (talk.sent) this.#goOn(talk);
      else this.#send(talk);
    }
  }

  #take(message) {
    this.#heard = Date.now();
    const talk = this.#talks.get(message.id);
    if (!talk) return;
    // An error without a place in a stream is the last word: nothing runs under this id.
    const isLast = message.type === 'complete' || (message.type === 'error' && message.seq === undefined);
    if (isLast) this.#talks.delete(talk.id);
    talk.onMessage(message);
  }

  #closed(socket, code) {
    if (socket !== this.#socket) return;
    this.#socket = null;
    const opened = this.state === 'open';
    if (code === 1009) this.#endUnanswered('The request is larger than this server takes.');
    this.#turn('lost');
    this.#failures += 1;
    const pause = PAUSES_MS[Math.min(this.#failures, PAUSES_MS.length) - 1];
    this.#retry = setTimeout(() => this.open(), pause * (0.75 + Math.random() / 2));
    if (!opened) this.#askWhy();
  }

  #endUnanswered(why) {
    for (const talk of [...this.#talks.values()]) {
      if (talk.sent && !talk.resume()) this.#end(talk, { type: 'error', error: why, code: 'too_large' });
    }
  }

  /** A browser does not tell why a handshake was refused: an address that needs a key as well does. */
  async #askWhy() {
    const key = currentKey();
    if ((await statusOfKey(key)) === 401 && (await askForKey(key))) this.open();
  }

  /** A network that has gone away closes nothing: after a silence, looks whether the server still answers. */
  async #look() {
    if (this.state !== 'open' || Date.now() - this.#heard < SILENCE_MS) return;
    const socket = this.#socket;
    if ((await statusOf('/healthz')) === 0 && socket === this.#socket) {
      socket.onclose = null;
      socket.close();
      this.#closed(socket, 1006);
    }
  }

  #turn(state) {
    if (this.state === state) return;
    this.state = state;
    this.dispatchEvent(new Event('state'));
  }
}
