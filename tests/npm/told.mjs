// What the packages of front ends make of streams that are given on stdin: {"aiSdk": [[chunk, …], …], "agUi": [[event, …], …]}.
// Prints for each of them what its package refuses, and what a message came to.
import { readUIMessageStream, uiMessageChunkSchema } from 'ai';
import { verifyEvents } from '@ag-ui/client';
import { EventSchema } from '@ag-ui/core/schemas';
import { from, lastValueFrom, toArray } from 'rxjs';
import { text } from 'node:stream/consumers';

const schema = await uiMessageChunkSchema();

async function ofAiSdk(chunks) {
  const refused = [], errors = [];
  for (const chunk of chunks) {
    const checked = await schema.validate(chunk);
    if (!checked.success) refused.push([chunk, String(checked.error)]);
  }
  let last;
  const stream = ReadableStream.from(chunks);
  for await (const message of readUIMessageStream({ stream, onError: (error) => errors.push(String(error)) })) last = message;
  const states = (last?.parts ?? []).filter((part) => part.toolCallId).map((part) => part.state);
  return { refused, errors, states, metadata: last?.metadata ?? {} };
}

async function ofAgUi(events) {
  const refused = [], errors = [];
  for (const event of events) {
    const checked = EventSchema.safeParse(event);
    if (!checked.success) refused.push([event, String(checked.error)]);
  }
  await lastValueFrom(from(events).pipe(verifyEvents(), toArray())).catch((error) => errors.push(String(error)));
  return { refused, errors };
}

const told = JSON.parse(await text(process.stdin));
const made = { aiSdk: [], agUi: [] };
for (const chunks of told.aiSdk) made.aiSdk.push(await ofAiSdk(chunks));
for (const events of told.agUi) made.agUi.push(await ofAgUi(events));
console.log(JSON.stringify(made));
