// The last runs, kept in this browser without their pictures, until somebody clears them.

import { Answer, Run } from './run.js';

const KEPT_AS = 'forgeline.runs';
const MOST_RUNS = 20;
const MOST_TEXT = 20_000; // characters of one answer

/** Newest first. Fires 'change'. */
export class History extends EventTarget {
  runs = read();

  add(run) {
    this.runs.unshift(run);
    this.runs.length = Math.min(this.runs.length, MOST_RUNS);
    for (const answer of run.answers) {
      answer.addEventListener('change', () => answer.ended && run.ended && this.#keep());
    }
    this.#keep();
  }

  clear() {
    this.runs = this.runs.filter((run) => !run.ended);
    this.#keep();
  }

  #keep() {
    try {
      localStorage.setItem(KEPT_AS, JSON.stringify(this.runs.filter((run) => run.ended).map(pack)));
    } catch {
      localStorage.removeItem(KEPT_AS); // the browser's room is used up: they live as long as the page
    }
    this.dispatchEvent(new Event('change'));
  }
}

function pack({ id, at, request, names, models, answers }) {
  return { id, at, request, names, models, answers: answers.map(packAnswer) };
}

function packAnswer({ model, state, text, chunks, error, result, resumed, firstTokenMs, elapsedMs }) {
  return { model, state, text: text.slice(0, MOST_TEXT), chunks, error, result, resumed, firstTokenMs, elapsedMs };
}

function read() {
  try {
    return (JSON.parse(localStorage.getItem(KEPT_AS)) ?? []).map(unpack);
  } catch {
    return []; // of another version, or not ours
  }
}

function unpack(kept) {
  const run = Object.assign(new Run(kept), { id: kept.id, at: kept.at });
  run.answers = kept.answers.map((answer) => Object.assign(new Answer(answer.model), answer));
  return run;
}
