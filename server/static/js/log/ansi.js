// ANSI escape sequences of a log line: parses the line into styled runs, and applies \r, \b and erase sequences.
//
// A style is a string of SGR codes, such as "1;31": each code becomes a class name when it is rendered, and a code
// again when a line is compacted. Colours beyond the sixteen become the nearest of these, so that a theme can keep
// every colour readable. Sequences without an effect within a line (cursor moves, titles, links) are removed.

const CONTROL_SEQUENCE = /\x1b\[([0-9;:?<>=!]*)[ -/]*([@-~])/;
const STRING_SEQUENCE = /\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?/; // a title, a link
const TOKEN = new RegExp(
  `${CONTROL_SEQUENCE.source}|${STRING_SEQUENCE.source}|\\x1b[ -/]*[0-~]?|[\r\b]|[^\x1b\r\b]+`, 'g',
);
const SGR = /\x1b\[([0-9;:]*)m/g;
const SPECIAL = /[\x00-\x08\x0b-\x1f\x7f]/;
const CONTROL = /[\x00-\x08\x0b-\x1f\x7f]/g;
const PRIVATE_PARAMETERS = /^[?<>=!]/; // private sequences: settings of the terminal
const MAX_CELLS = 10_000; // rendered of one line

/** The runs [{text, style}] of a line that starts in `style`, and the style at its end. */
export function parseLine(line, style = '') {
  if (!SPECIAL.test(line)) return { runs: [{ text: line.slice(0, MAX_CELLS), style }], style };
  if (hasOnlyColours(line)) return parseColours(line, style);
  const terminalLine = new TerminalLine(style);
  for (const [token, parameters, final] of line.matchAll(TOKEN)) {
    if (final) terminalLine.control(final, parameters);
    else if (token === '\r') terminalLine.cursor = 0;
    else if (token === '\b') terminalLine.cursor = Math.max(0, terminalLine.cursor - 1);
    else if (token[0] !== '\x1b') terminalLine.write(token);
  }
  return { runs: terminalLine.runs(), style: terminalLine.style };
}

/** The style at the end of a line that starts in `style`. */
export function styleAfter(line, style) {
  if (!line.includes('\x1b')) return style;
  return Array.from(line.matchAll(SGR)).reduce((current, [, parameters]) => applySgr(current, parameters), style);
}

/** The rendered text without styles. */
export function plainText(line) {
  if (!SPECIAL.test(line)) return line;
  return hasOnlyColours(line) ? line.replace(SGR, '') : joinText(parseLine(line).runs);
}

const joinText = (runs) => runs.map((run) => run.text).join('');

/** The fast path for most lines that are not plain: a search parses many thousands of lines per key press. */
const hasOnlyColours = (line) => line.length <= MAX_CELLS && !SPECIAL.test(line.replace(SGR, ''));

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

/** A shorter line that renders like `line`, without its overwritten text. */
export function compact(line, style) {
  const parsed = parseLine(line, style);
  const codes = parsed.runs.map((run) => `\x1b[0;${run.style}m${run.text}`).join('');
  return `${codes}\x1b[0;${parsed.style}m\r`;
}

/** The class names of a style. */
export const styleClasses = (style) => style && style.split(';').map((code) => `sgr-${code}`).join(' ');

/** The symbol for a control character, of the Unicode block Control Pictures. */
const controlPicture = (control) => String.fromCharCode(control === '\x7f' ? 0x2421 : 0x2400 + control.charCodeAt(0));

/** One line of a terminal: each character overwrites the cell at the cursor. */
class TerminalLine {
  cursor = 0;
  #characters = [];
  #styles = [];

  constructor(style) {
    this.style = style;
  }

  write(text) {
    for (const character of text.replace(CONTROL, controlPicture)) {
      if (this.cursor >= MAX_CELLS) return;
      while (this.#characters.length < this.cursor) this.#put(this.#characters.length, ' ', '');
      this.#put(this.cursor, character, this.style);
      this.cursor += 1;
    }
  }

  control(final, parameters) {
    const first = Number.parseInt(parameters, 10) || 0;
    if (PRIVATE_PARAMETERS.test(parameters)) return;
    if (final === 'm') this.style = applySgr(this.style, parameters);
    else if (final === 'K') this.#erase(first);
    else if (final === 'G') this.cursor = Math.min(Math.max(0, first - 1), MAX_CELLS);
    else if (final === 'C') this.cursor = Math.min(this.cursor + Math.max(1, first), MAX_CELLS);
    else if (final === 'D') this.cursor = Math.max(0, this.cursor - Math.max(1, first));
  }

  runs() {
    const runs = [];
    for (let cell = 0; cell < this.#characters.length; cell += 1) {
      const last = runs.at(-1);
      if (last && last.style === this.#styles[cell]) last.text += this.#characters[cell];
      else runs.push({ text: this.#characters[cell], style: this.#styles[cell] });
    }
    return runs;
  }

  #put(cell, character, style) {
    this.#characters[cell] = character;
    this.#styles[cell] = style;
  }

  /** `mode` as in CSI K. 0: from the cursor to the end; 1: from the start to the cursor; 2: all. */
  #erase(mode) {
    if (mode === 1) {
      for (let cell = 0; cell <= this.cursor && cell < this.#characters.length; cell += 1) this.#put(cell, ' ', '');
      return;
    }
    const keep = mode === 2 ? 0 : this.cursor;
    this.#characters.length = Math.min(this.#characters.length, keep);
    this.#styles.length = this.#characters.length;
  }
}

const RESET_CODES = { 22: [1, 2], 23: [3], 24: [4], 27: [7], 29: [9] };
const ATTRIBUTES = [1, 2, 3, 4, 7, 9];
const isForeground = (code) => (code >= 30 && code <= 37) || (code >= 90 && code <= 97);
const isBackground = (code) => (code >= 40 && code <= 47) || (code >= 100 && code <= 107);

function applySgr(style, parameters) {
  if (parameters === '' || parameters === '0') return ''; // a reset, which is every other sequence in practice
  let codes = style ? style.split(';').map(Number) : [];
  const queue = parameters.split(/[;:]/).map((text) => Number(text) || 0);
  while (queue.length > 0) {
    const code = queue.shift();
    if (code === 0) codes = [];
    else if (ATTRIBUTES.includes(code)) codes = [...codes.filter((active) => active !== code), code];
    else if (RESET_CODES[code]) codes = codes.filter((active) => !RESET_CODES[code].includes(active));
    else if (code === 38) codes = replaceColour(codes, isForeground, extendedColour(queue, 0));
    else if (code === 48) codes = replaceColour(codes, isBackground, extendedColour(queue, 10));
    else if (isForeground(code) || code === 39) codes = replaceColour(codes, isForeground, code);
    else if (isBackground(code) || code === 49) codes = replaceColour(codes, isBackground, code);
  }
  return codes.sort((a, b) => a - b).join(';');
}

const replaceColour = (codes, isSameLayer, code) =>
  [...codes.filter((active) => !isSameLayer(active)), ...(isSameLayer(code) ? [code] : [])];

/** The nearest of the sixteen colours to `5;N` or `2;R;G;B`, which it removes from `queue`; else 0. */
function extendedColour(queue, offset) {
  const format = queue.shift();
  if (format === 2) return nearestColour(...queue.splice(0, 3)) + offset;
  if (format !== 5) return 0;
  const number = queue.shift() ?? 0;
  if (number < 16) return (number < 8 ? 30 + number : 82 + number) + offset;
  if (number >= 232) return nearestColour(...Array(3).fill((number - 232) * 10 + 8)) + offset;
  const level = (part) => (part === 0 ? 0 : part * 40 + 55);
  const cube = number - 16;
  return nearestColour(level(Math.floor(cube / 36)), level(Math.floor(cube / 6) % 6), level(cube % 6)) + offset;
}

function nearestColour(red = 0, green = 0, blue = 0) {
  const high = Math.max(red, green, blue);
  if (high - Math.min(red, green, blue) < 32) return high > 200 ? 97 : high > 120 ? 37 : high > 50 ? 90 : 30;
  const hueBits = [red, green, blue].reduce((bits, part, at) => bits | (part > high / 2 ? 1 << at : 0), 0);
  return (high > 190 ? 90 : 30) + hueBits;
}
