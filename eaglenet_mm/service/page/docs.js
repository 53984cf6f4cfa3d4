'use strict';
// Writes openapi.json as a page, with what comes from this server alone.

const make = (kind, textContent = '') => Object.assign(
  document.createElement(kind), { textContent },
);

/** Name the kind of a value: text, number, list of Hit, ... */
function kind(schema) {
  if (schema.$ref) return schema.$ref.split('/').pop();
  if (schema.anyOf) return schema.anyOf.map(kind).join(' or ');
  if (schema.type === 'array') return `list of ${kind(schema.items)}`;
  const from = schema.minimum ?? schema.exclusiveMinimum;
  const to = schema.maximum ?? schema.exclusiveMaximum;
  const range = from === undefined ? '' : ` from ${from} to ${to}`;
  return (schema.format || schema.type || 'anything') + range;
}

/** Write the fields of an object, one a row. */
function table(schema) {
  const all = make('table');
  for (const [name, own] of Object.entries(schema.properties || {})) {
    const preset = own.default ?? '';
    const row = make('tr');
    row.append(
      make('td', (schema.required || []).includes(name) ? `${name} *` : name),
      make('td', kind(own)),
      make('td', preset === '' ? '' : `default: ${JSON.stringify(preset)}`),
      make('td', own.description),
    );
    all.append(row);
  }
  return all;
}

async function begin() {
  const answer = await (await fetch('openapi.json')).json();
  const page = document.getElementById('routes');
  for (const [path, methods] of Object.entries(answer.paths)) {
    for (const [method, route] of Object.entries(methods)) {
      page.append(make('h2', `${method.toUpperCase()} ${path}`));
      page.append(make('p', route.description));
      for (const [how, body] of [
        ['Question', route.requestBody], ['Answer', route.responses['200']],
      ]) {
        for (const [type, own] of Object.entries(body?.content || {})) {
          page.append(make('p', `${how}: ${type}, ${kind(own.schema || {})}`));
        }
      }
    }
  }
  for (const [name, schema] of Object.entries(answer.components.schemas)) {
    page.append(make('h2', name), make('p', schema.description), table(schema));
  }
}

begin();
