// A line of a terminal's output as runs of text, each with its SGR codes: colours, and what \r, \b and erasing do.
//
// A style is a string of SGR codes, such as "1;31": a class name for each when it is shown, and the codes themselves
// when a line is written back. Colours beyond the sixteen become the nearest of them, so that a theme can keep every
// one readable. Sequences that mean nothing in a line (cursor moves, titles, links) are left out.

const CONTROL_SEQUENCE = /\x1b\[([0-9;:?<>=!]*)[ -/]*([@-~])/;
const STRING = /\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?/; // a title, a link
const TOKEN = new RegExp(`${CONTROL_SEQUENCE.source}|${STRING.source}|\\x1b[ -/]*[0-~]?|[\r\b]|[^\x1b\r\b]+`, 'g');
const SGR = /\x1b\[([0-9;:]*)m/g;
const SPECIAL = /[\x00-\x08\x0b-\x1f\x7f]/;
const CONTROL = /[\x00-\x08\x0b-\x1f\x7f]/g;
const PRIVATE = /^[?<>=!]/; // a terminal's own settings
const MOST_CELLS = 10_000; // of one line that are shown

/** The runs [{text, style}] of a line that begins in `style`, and the style in which it ends. */
export function parseLine(line, style = '') {
  if (!SPECIAL.test(line)) return { runs: [{ text: line.slice(0, MOST_CELLS), style }], style };
  if (isOnlyColoured(line)) return parseColours(line, style);
  const cells = new Cells(style);
  for (const [token, parameters, final] of line.matchAll(TOKEN)) {
    if (final) cells.control(final, parameters);
    else if (token === '\r') cells.at = 0;
    else if (token === '\b') cells.at = Math.max(0, cells.at - 1);
    else if (token[0] !== '\x1b') cells.write(token);
  }
  return { runs: cells.runs(), style: cells.style };
}

/** The style in which a line ends that begins in `style`. */
export function styleAfter(line, style) {
  if (!line.includes('\x1b')) return style;
  return Array.from(line.matchAll(SGR)).reduce((now, [, parameters]) => applySgr(now, parameters), style);
}

/** The text alone, as it is shown. */
export function plainText(line) {
  if (!SPECIAL.test(line)) return line;
  return isOnlyColoured(line) ? line.replace(SGR, '') : textOf(parseLine(line).runs);
}

const textOf = (runs) => runs.map((run) => run.text).join('');

/** What most lines are that are not plain: many thousands of them are looked through while somebody types. */
const isOnlyColoured = (line) => line.length <= MOST_CELLS && !SPECIAL.test(line.replace(SGR, ''));

function parseColours(line, style) {
  const runs = [];
  let at = 0;
  for (const { 0: sequence, 1: parameters, index } of line.matchAll(SGR)) {
    if (index > at) runs.push({ text: line.slice(at, index), style });
    style = applySgr(style, parameters);
    at = index + sequence.length;
  }
  if (at < line.length) runs.push({ text: line.slice(at), style });
  return { runs, style };
}

/** A line that shows the same as `line` does, without what it has overwritten. */
export function compact(line, style) {
  const parsed = parseLine(line, style);
  const codes = parsed.runs.map((run) => `\x1b[0;${run.style}m${run.text}`).join('');
  return `${codes}\x1b[0;${parsed.style}m\r`;
}

/** The class names of a style. */
export const classesOf = (style) => style && style.split(';').map((code) => `sgr-${code}`).join(' ');

/** The sign that stands for a control character. */
const picture = (control) => String.fromCharCode(control === '\x7f' ? 0x2421 : 0x2400 + control.charCodeAt(0));

/** A line as a terminal writes it: each character into its cell, over what stood there. */
class Cells {
  at = 0;
  #characters = [];
  #styles = [];

  constructor(style) {
    this.style = style;
  }

  write(text) {
    for (const character of text.replace(CONTROL, picture)) {
      if (this.at >= MOST_CELLS) return;
      while (this.#characters.length < this.at) this.#put(this.#characters.length, ' ', '');
      this.#put(this.at, character, this.style);
      this.at += 1;
    }
  }

  control(final, parameters) {
    const first = Number.parseInt(parameters, 10) || 0;
    if (PRIVATE.test(parameters)) return;
    if (final === 'm') this.style = applySgr(this.style, parameters);
    else if (final === 'K') this.#erase(first);
    else if (final === 'G') this.at = Math.min(Math.max(0, first - 1), MOST_CELLS);
    else if (final === 'C') this.at = Math.min(this.at + Math.max(1, first), MOST_CELLS);
    else if (final === 'D') this.at = Math.max(0, this.at - Math.max(1, first));
  }

  runs() {
    const runs = [];
    for (let at = 0; at < this.#characters.length; at += 1) {
      const last = runs.at(-1);
      if (last && last.style === this.#styles[at]) last.text += this.#characters[at];
      else runs.push({ text: this.#characters[at], style: this.#styles[at] });
    }
    return runs;
  }

  #put(at, character, style) {
    this.#characters[at] = character;
    this.#styles[at] = style;
  }

  /** 0: from here to the end; 1: from the beginning to here; 2: all. */
  #erase(which) {
    if (which === 1) {
      for (let at = 0; at <= this.at && at < this.#characters.length; at += 1) this.#put(at, ' ', '');
      return;
    }
    const keep = which === 2 ? 0 : this.at;
    this.#characters.length = Math.min(this.#characters.length, keep);
    this.#styles.length = this.#characters.length;
  }
}

const ENDS = { 22: [1, 2], 23: [3], 24: [4], 27: [7], 29: [9] };
const ATTRIBUTES = [1, 2, 3, 4, 7, 9];
const isText = (code) => (code >= 30 && code <= 37) || (code >= 90 && code <= 97);
const isGround = (code) => (code >= 40 && code <= 47) || (code >= 100 && code <= 107);

function applySgr(style, parameters) {
  if (parameters === '' || parameters === '0') return ''; // every other one
  let codes = style ? style.split(';').map(Number) : [];
  const given = parameters.split(/[;:]/).map((text) => Number(text) || 0);
  while (given.length > 0) {
    const code = given.shift();
    if (code === 0) codes = [];
    else if (ATTRIBUTES.includes(code)) codes = [...codes.filter((one) => one !== code), code];
    else if (ENDS[code]) codes = codes.filter((one) => !ENDS[code].includes(one));
    else if (code === 38) codes = withColour(codes, isText, extended(given, 0));
    else if (code === 48) codes = withColour(codes, isGround, extended(given, 10));
    else if (isText(code) || code === 39) codes = withColour(codes, isText, code);
    else if (isGround(code) || code === 49) codes = withColour(codes, isGround, code);
  }
  return codes.sort((one, other) => one - other).join(';');
}

const withColour = (codes, kind, code) => [...codes.filter((one) => !kind(one)), ...(kind(code) ? [code] : [])];

/** The code of the nearest of the sixteen colours to what `5;N` or `2;R;G;B` names; takes these from `given`. */
function extended(given, shift) {
  const form = given.shift();
  if (form === 2) return nearest(...given.splice(0, 3)) + shift;
  if (form !== 5) return 0;
  const number = given.shift() ?? 0;
  if (number < 16) return (number < 8 ? 30 + number : 82 + number) + shift;
  if (number >= 232) return nearest(...Array(3).fill((number - 232) * 10 + 8)) + shift;
  const level = (part) => (part === 0 ? 0 : part * 40 + 55);
  const cube = number - 16;
  return nearest(level(Math.floor(cube / 36)), level(Math.floor(cube / 6) % 6), level(cube % 6)) + shift;
}

function nearest(red = 0, green = 0, blue = 0) {
  const high = Math.max(red, green, blue);
  if (high - Math.min(red, green, blue) < 32) return high > 200 ? 97 : high > 120 ? 37 : high > 50 ? 90 : 30;
  const hue = [red, green, blue].reduce((bits, part, at) => bits | (part > high / 2 ? 1 << at : 0), 0);
  return (high > 190 ? 90 : 30) + hue;
}
