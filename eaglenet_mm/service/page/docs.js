'use strict';
// Writes openapi.json as a page, with what comes from this server alone.

const make = (name, text) => {
  const element = document.createElement(name);
  element.textContent = text;
  return element;
};

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
  const rows = Object.entries(schema.properties || {}).map(([name, own]) => {
    const row = document.createElement('tr');
    const preset = own.default ?? '';
    row.append(
      make('td', (schema.required || []).includes(name) ? `${name} *` : name),
      make('td', kind(own)),
      make('td', preset === '' ? '' : `default: ${JSON.stringify(preset)}`),
      make('td', own.description || ''),
    );
    return row;
  });
  const all = document.createElement('table');
  all.append(...rows);
  return all;
}

async function begin() {
  const answer = await (await fetch('openapi.json')).json();
  const page = document.getElementById('routes');
  for (const [path, methods] of Object.entries(answer.paths)) {
    for (const [method, route] of Object.entries(methods)) {
      page.append(make('h2', `${method.toUpperCase()} ${path}`));
      page.append(make('p', route.description || ''));
      const asked = Object.entries(route.requestBody?.content || {});
      const given = Object.values(route.responses['200'].content || {});
      for (const [type, body] of asked) {
        page.append(make('p', `${type}: ${kind(body.schema)}`));
      }
      const told = given.map((body) => kind(body.schema || {})).join();
      if (told) page.append(make('p', `Answer: ${told}`));
    }
  }
  for (const [name, schema] of Object.entries(answer.components.schemas)) {
    page.append(make('h2', name), make('p', schema.description || ''));
    page.append(table(schema));
  }
}

begin();
