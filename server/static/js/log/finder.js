// Finding a text in a log, upper and lower case alike; what came since the last look is looked at then.

import { plainText } from './ansi.js';

export class Finder {
  matches = []; // numbers of lines, ascending
  current = null; // the line that was gone to last
  #query = '';
  #buffer;
  #next = 1; // the line from which on nothing has been looked at

  constructor(buffer) {
    this.#buffer = buffer;
  }

  get query() {
    return this.#query;
  }

  find(query) {
    this.#query = query.toLowerCase();
    this.matches = [];
    this.current = null;
    this.#next = 1;
    this.update();
  }

  /** Looks at what is new; the last line may still grow, and is looked at again. */
  update() {
    if (!this.#query) return;
    const { dropped, end } = this.#buffer;
    while (this.matches[0] <= dropped) this.matches.shift();
    while (this.matches.at(-1) >= this.#next) this.matches.pop();
    for (let number = Math.max(this.#next, dropped + 1); number <= end; number += 1) {
      if (plainText(this.#buffer.line(number)).toLowerCase().includes(this.#query)) this.matches.push(number);
    }
    this.#next = Math.max(end, 1);
  }

  /** The line of the next match in this direction (1 or -1), round the end; from `here` where none was gone to yet. */
  step(direction, here) {
    if (this.matches.length === 0) return null;
    const from = this.current ?? here - direction;
    const next = direction > 0 ? this.matches.find((number) => number > from) : this.matches.findLast((number) => number < from);
    this.current = next ?? this.matches.at(direction > 0 ? 0 : -1);
    return this.current;
  }

  /** The parts [text, isMatch] of a run's text. */
  parts(text) {
    if (!this.#query) return [[text, false]];
    const parts = [];
    const lower = text.toLowerCase();
    let from = 0;
    for (let at = lower.indexOf(this.#query); at >= 0; at = lower.indexOf(this.#query, from)) {
      parts.push([text.slice(from, at), false], [text.slice(at, at + this.#query.length), true]);
      from = at + this.#query.length;
    }
    return [...parts, [text.slice(from), false]].filter(([part]) => part);
  }
}
