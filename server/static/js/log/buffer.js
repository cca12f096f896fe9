// The line buffer of a log: splits text at \n, numbers lines from the log's start, and drops the oldest beyond a limit.

import { compact, parseLine, styleAfter } from './ansi.js';

const MAX_LINES = 200_000;
const MAX_CHARACTERS = 50_000_000;
const DROP_FRACTION = 0.1; // of the lines, dropped together: one drop is costly, so drops are rare
const MAX_LINE_LENGTH = 100_000; // characters; a longer line is split
const COMPACT_LENGTH = 2_000; // characters; the overwritten text of a longer line with \r is removed

export class LogBuffer {
  droppedLines = 0; // at the start of the log
  #lines = [];
  #styles = new Map(); // at the start of a line, by line number; only where there is one
  #style = ''; // at the start of the next line
  #characters = 0;
  #isLastLineOpen = false; // whether the last line may grow

  /** The lines of the log so far, dropped ones included: the number of the last line. */
  get totalLines() {
    return this.droppedLines + this.#lines.length;
  }

  /** The raw line with this number, from 1. */
  line(number) {
    return this.#lines[number - 1 - this.droppedLines];
  }

  /** The styled runs of a line. */
  runs(number) {
    return parseLine(this.line(number), this.#styles.get(number)).runs;
  }

  append(text) {
    const parts = text.split('\n');
    parts.forEach((part, index) => {
      this.#appendToLine(part);
      if (index < parts.length - 1) this.#endLine();
    });
    if (this.#lines.length > MAX_LINES || this.#characters > MAX_CHARACTERS) this.#dropOldest();
  }

  #appendToLine(part) {
    if (part === '') return;
    if (!this.#isLastLineOpen) this.#startLine();
    const last = this.#lines.length - 1;
    let line = this.#lines[last] + part;
    const isOverwritten = line.length > COMPACT_LENGTH && line.lastIndexOf('\r', line.length - 2) > 0;
    if (isOverwritten) line = compact(line, this.#styles.get(this.totalLines));
    this.#characters += line.length - this.#lines[last].length;
    this.#lines[last] = line;
    if (line.length > MAX_LINE_LENGTH) this.#endLine();
  }

  #startLine() {
    this.#lines.push('');
    this.#isLastLineOpen = true;
    if (this.#style) this.#styles.set(this.totalLines, this.#style);
  }

  #endLine() {
    if (!this.#isLastLineOpen) this.#startLine(); // an empty line
    const last = this.#lines.length - 1;
    const line = this.#lines[last];
    if (line.endsWith('\r')) this.#lines[last] = line.slice(0, -1);
    this.#style = styleAfter(line, this.#style);
    this.#isLastLineOpen = false;
  }

  #dropOldest() {
    const count = Math.ceil(this.#lines.length * DROP_FRACTION);
    for (let number = this.droppedLines + 1; number <= this.droppedLines + count; number += 1) {
      this.#characters -= this.line(number).length;
      this.#styles.delete(number);
    }
    this.#lines.splice(0, count);
    this.droppedLines += count;
  }
}
