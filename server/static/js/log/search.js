// Search in a log, case-insensitive. An update searches only the lines that are new since the last update.

import { formatCount, pluralize } from '../format.js';
import { plainText } from './ansi.js';

export class LogSearch {
  matches = []; // line numbers, ascending
  current = null; // the line number of the current match
  #query = '';
  #buffer;
  #nextLine = 1; // the first line that has not been searched

  constructor(buffer) {
    this.#buffer = buffer;
  }

  get query() {
    return this.#query;
  }

  /** The number of matching lines as text, with the index of the current match. */
  get summary() {
    if (!this.#query) return '';
    if (this.matches.length === 0) return 'not found';
    const position = this.current === null ? '' : `${formatCount(this.matches.indexOf(this.current) + 1)} of `;
    return position + pluralize(this.matches.length, 'line');
  }

  setQuery(query) {
    this.#query = query.toLowerCase();
    this.matches = [];
    this.current = null;
    this.#nextLine = 1;
    this.update();
  }

  /** Searches the new lines. The last line may still grow, so the next update searches it again. */
  update() {
    if (!this.#query) return;
    const { droppedLines, totalLines } = this.#buffer;
    if (this.matches[0] <= droppedLines) this.matches = this.matches.filter((number) => number > droppedLines);
    if (this.matches.at(-1) >= this.#nextLine) this.matches.pop();
    for (let number = Math.max(this.#nextLine, droppedLines + 1); number <= totalLines; number += 1) {
      if (plainText(this.#buffer.line(number)).toLowerCase().includes(this.#query)) this.matches.push(number);
    }
    this.#nextLine = Math.max(totalLines, 1);
  }

  /**
   * Moves to the next match in a direction (1 or -1), with wrap-around; without a current match, from `firstVisible`
   * on. Returns its line number, or null without a match.
   */
  step(direction, firstVisible) {
    if (this.matches.length === 0) return null;
    const from = this.current ?? firstVisible - direction;
    const isDown = direction > 0;
    const next = isDown
      ? this.matches.find((number) => number > from)
      : this.matches.findLast((number) => number < from);
    this.current = next ?? this.matches.at(isDown ? 0 : -1);
    return this.current;
  }

  /** Splits a line's runs at the bounds of matches: [{text, style, isMatch}]. A match may span runs. */
  highlight(runs) {
    if (!this.#query) return runs;
    const bounds = this.#matchBounds(runs.map((run) => run.text).join('').toLowerCase());
    const parts = [];
    let offset = 0;
    for (const { text, style } of runs) {
      const end = offset + text.length;
      const cuts = bounds.filter((bound) => bound > offset && bound < end);
      for (const [from, to] of pairs([offset, ...cuts, end])) {
        const isMatch = bounds.filter((bound) => bound <= from).length % 2 === 1;
        parts.push({ text: text.slice(from - offset, to - offset), style, isMatch });
      }
      offset = end;
    }
    return parts;
  }

  /** The start and end offsets of all matches, alternating. */
  #matchBounds(line) {
    const bounds = [];
    const { length } = this.#query;
    for (let start = line.indexOf(this.#query); start >= 0; start = line.indexOf(this.#query, start + length)) {
      bounds.push(start, start + length);
    }
    return bounds;
  }
}

const pairs = (numbers) => numbers.slice(1).map((number, index) => [numbers[index], number]);
