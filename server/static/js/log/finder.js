// Finding a text in a log, upper and lower case alike; what came since the last look is looked at then.

import { count, plural } from '../format.js';
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

  /** How many there are, in words, and which of them was gone to. */
  get summary() {
    if (!this.#query) return '';
    if (this.matches.length === 0) return 'not found';
    const at = this.current === null ? '' : `${count(this.matches.indexOf(this.current) + 1)} of `;
    return at + plural(this.matches.length, 'line');
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
    if (this.matches[0] <= dropped) this.matches = this.matches.filter((number) => number > dropped);
    if (this.matches.at(-1) >= this.#next) this.matches.pop();
    for (let number = Math.max(this.#next, dropped + 1); number <= end; number += 1) {
      if (plainText(this.#buffer.line(number)).toLowerCase().includes(this.#query)) this.matches.push(number);
    }
    this.#next = Math.max(end, 1);
  }

  /** The line of the next match in this direction (1 or -1), round the end; from `here` where none was gone to yet. */
  step(direction, here) {
    if (this.matches.length === 0) return null;
    const from = this.current ?? here - direction;
    const isDown = direction > 0;
    const next = isDown ? this.matches.find((one) => one > from) : this.matches.findLast((one) => one < from);
    this.current = next ?? this.matches.at(isDown ? 0 : -1);
    return this.current;
  }

  /** The runs of a line, cut where a match begins and ends: [{text, style, isMatch}]. A match may span runs. */
  parts(runs) {
    if (!this.#query) return runs;
    const edges = this.#edges(runs.map((run) => run.text).join('').toLowerCase());
    const parts = [];
    let at = 0;
    for (const { text, style } of runs) {
      const cuts = edges.filter((edge) => edge > at && edge < at + text.length);
      for (const [from, to] of pairs([at, ...cuts, at + text.length])) {
        const isMatch = edges.filter((edge) => edge <= from).length % 2 === 1;
        parts.push({ text: text.slice(from - at, to - at), style, isMatch });
      }
      at += text.length;
    }
    return parts;
  }

  /** Where matches begin and end, in turn. */
  #edges(line) {
    const edges = [];
    for (let at = line.indexOf(this.#query); at >= 0; at = line.indexOf(this.#query, at + this.#query.length)) {
      edges.push(at, at + this.#query.length);
    }
    return edges;
  }
}

const pairs = (numbers) => numbers.slice(1).map((number, at) => [numbers[at], number]);
