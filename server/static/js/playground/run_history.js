// The history of runs, stored in this browser without their pictures, until the user clears it.

import { Answer, Run } from './run.js';

const STORAGE_KEY = 'forgeline.runs';
const MAX_RUNS = 20;
const MAX_TEXT = 20_000; // characters of one answer

/** Newest first. Fires 'change'. */
export class RunHistory extends EventTarget {
  runs = load();

  add(run) {
    this.runs.unshift(run);
    this.runs.length = Math.min(this.runs.length, MAX_RUNS);
    for (const answer of run.answers) {
      answer.addEventListener('change', () => answer.ended && run.ended && this.#save());
    }
    this.#save();
  }

  clear() {
    this.runs = this.runs.filter((run) => !run.ended);
    this.#save();
  }

  #save() {
    try {
      localStorage.setItem(STORAGE_KEY, JSON.stringify(this.runs.filter((run) => run.ended).map(serializeRun)));
    } catch {
      localStorage.removeItem(STORAGE_KEY); // the storage quota is used up: the runs last as long as the page
    }
    this.dispatchEvent(new Event('change'));
  }
}

function serializeRun({ id, at, request, names, models, answers }) {
  return { id, at, request, names, models, answers: answers.map(serializeAnswer) };
}

function serializeAnswer({ model, state, text, chunks, error, result, resumed, firstTokenMs, elapsedMs }) {
  return { model, state, text: text.slice(0, MAX_TEXT), chunks, error, result, resumed, firstTokenMs, elapsedMs };
}

function load() {
  try {
    return (JSON.parse(localStorage.getItem(STORAGE_KEY)) ?? []).map(deserializeRun);
  } catch {
    return []; // written by another version, or by another program
  }
}

function deserializeRun(stored) {
  const run = Object.assign(new Run(stored), { id: stored.id, at: stored.at });
  run.answers = stored.answers.map((answer) => Object.assign(new Answer(answer.model), answer));
  return run;
}
