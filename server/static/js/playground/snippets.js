// Code snippets of a request, for curl, Python and JavaScript, with the same URL and fields.

import { currentKey } from '../api_key.js';

const MULTI_MODEL_PATH = '/api/multi-inference';

/** By language: a function that renders a run as source code. An API key is only a variable name there. */
export const SNIPPETS = {
  curl: (run) => new Snippet(run).curl(),
  Python: (run) => new Snippet(run).python(),
  JavaScript: (run) => new Snippet(run).javascript(),
};

class Snippet {
  constructor({ request, names, models }) {
    const { frames, ...fields } = request;
    this.fields = models.length > 1 ? { ...fields, models } : fields;
    this.names = names;
    const path = models.length > 1 ? MULTI_MODEL_PATH : `/api/stream/${encodeURIComponent(models[0])}`;
    this.url = location.origin + path;
    this.needsKey = currentKey() !== '';
  }

  curl() {
    const key = this.needsKey ? ' \\\n  -H "Authorization: Bearer $FORGELINE_KEY"' : '';
    const types = "-H 'Content-Type: application/json' -H 'Accept: application/x-ndjson'";
    const head = `curl -sN ${this.url} \\\n  ${types}${key} \\\n  --data-binary @-`;
    if (this.names.length === 0) return `${head} <<'JSON'\n${pretty(this.fields)}\nJSON\n`;
    // An unquoted here-document, in which the shell inserts the files: as arguments, large ones would be too long.
    const files = this.names.map((name) => `"$(base64 < ${shellQuote(name)} | tr -d '\\n')"`);
    const body = pretty({ ...this.fields, frames: [] })
      .replace(/[\\$`]/g, '\\$&')
      .replace(/"frames": \[\]\n\}$/, () => `"frames": [${files.join(', ')}]\n}`);
    return `${head} <<JSON\n${body}\nJSON\n`;
  }

  python() {
    const frames = this.names.length > 0;
    const key = this.needsKey ? ', "Authorization": f"Bearer {os.environ[\'FORGELINE_KEY\']}"' : '';
    return [
      frames && 'import base64',
      'import json',
      this.needsKey && 'import os',
      frames && 'from pathlib import Path',
      '',
      'import requests',
      '',
      `body = ${JSON.stringify(this.fields, null, 4)}`,
      frames && `names = ${JSON.stringify(this.names)}`,
      frames && 'body["frames"] = [base64.b64encode(Path(name).read_bytes()).decode() for name in names]',
      `headers = {"Accept": "application/x-ndjson"${key}}`,
      `with requests.post("${this.url}", json=body, headers=headers, stream=True) as answer:`,
      '    for line in answer.iter_lines():',
      '        event = json.loads(line)',
      '        if event.get("type") == "chunk":',
      '            print(event["delta"], end="", flush=True)',
      '        elif "error" in event:',
      '            print(event["error"])',
      '',
    ].filter((line) => line !== false).join('\n');
  }

  javascript() {
    const frames = this.names.length > 0;
    const names = JSON.stringify(this.names);
    return [
      frames && "import { readFile } from 'node:fs/promises';\n",
      `const body = ${pretty(this.fields)};`,
      frames && `body.frames = await Promise.all(${names}.map((name) => readFile(name, 'base64')));`,
      `const answer = await fetch('${this.url}', {`,
      "  method: 'POST',",
      '  headers: {',
      "    'Content-Type': 'application/json',",
      "    Accept: 'application/x-ndjson',",
      this.needsKey && '    Authorization: `Bearer ${process.env.FORGELINE_KEY}`,',
      '  },',
      '  body: JSON.stringify(body),',
      '});',
      'let rest = \'\';',
      'for await (const piece of answer.body.pipeThrough(new TextDecoderStream())) {',
      '  const lines = (rest + piece).split(\'\\n\');',
      '  rest = lines.pop();',
      '  for (const event of lines.map((line) => JSON.parse(line))) {',
      "    if (event.type === 'chunk') process.stdout.write(event.delta);",
      '    else if (event.error) console.error(event.error);',
      '  }',
      '}',
      'if (rest) console.error(JSON.parse(rest).error);',
      '',
    ].filter((line) => line !== false).join('\n');
  }
}

const pretty = (value) => JSON.stringify(value, null, 2);

const shellQuote = (text) => `'${text.replaceAll("'", "'\\''")}'`;
