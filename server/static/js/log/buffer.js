// The lines of a log as they come: cut at \n, numbered from the log's beginning, the oldest dropped beyond a bound.

import { compact, parseLine, styleAfter } from './ansi.js';

const MOST_LINES = 200_000;
const MOST_CHARACTERS = 50_000_000;
const DROP = 0.1; // the part that is dropped at once, so that it is seldom done
const LONG = 100_000; // characters after which a line without an end is taken for one
const CROWDED = 2_000; // characters of a line with \r, after which what it has overwritten is thrown away

export class LogBuffer {
  dropped = 0; // lines that are not kept any more
  #lines = [];
  #styles = new Map(); // of lines that begin in another style than none, by their number
  #style = ''; // in which the next line begins
  #characters = 0;
  #open = false; // whether the last line may still grow

  /** How many lines there have been: the number of the last one. */
  get end() {
    return this.dropped + this.#lines.length;
  }

  /** The line with this number (from 1), as it came. */
  line(number) {
    return this.#lines[number - 1 - this.dropped];
  }

  /** The runs of this line. */
  runs(number) {
    return parseLine(this.line(number), this.#styles.get(number)).runs;
  }

  append(text) {
    const parts = text.split('\n');
    parts.forEach((part, at) => {
      this.#extend(part);
      if (at < parts.length - 1) this.#finish();
    });
    if (this.#lines.length > MOST_LINES || this.#characters > MOST_CHARACTERS) this.#drop();
  }

  #extend(part) {
    if (part === '') return;
    if (!this.#open) this.#begin();
    const last = this.#lines.length - 1;
    let line = this.#lines[last] + part;
    const crowded = line.length > CROWDED && line.lastIndexOf('\r', line.length - 2) > 0;
    if (crowded) line = compact(line, this.#styles.get(this.end));
    this.#characters += line.length - this.#lines[last].length;
    this.#lines[last] = line;
    if (line.length > LONG) this.#finish();
  }

  #begin() {
    this.#lines.push('');
    this.#open = true;
    if (this.#style) this.#styles.set(this.end, this.#style);
  }

  #finish() {
    if (!this.#open) this.#begin(); // an empty line
    const last = this.#lines.length - 1;
    const line = this.#lines[last];
    if (line.endsWith('\r')) this.#lines[last] = line.slice(0, -1);
    this.#style = styleAfter(line, this.#style);
    this.#open = false;
  }

  #drop() {
    const many = Math.ceil(this.#lines.length * DROP);
    for (let number = this.dropped + 1; number <= this.dropped + many; number += 1) {
      this.#characters -= this.line(number).length;
      this.#styles.delete(number);
    }
    this.#lines.splice(0, many);
    this.dropped += many;
  }
}
