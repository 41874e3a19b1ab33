// What existing front ends do, with their own code: a chat of the AI SDK, and an agent of AG-UI.
// Prints what came of it as one JSON document.
import {
  AbstractChat, DefaultChatTransport, lastAssistantMessageIsCompleteWithApprovalResponses, lastAssistantMessageIsCompleteWithToolCalls,
} from 'ai';
import { HttpAgent } from '@ag-ui/client';

const [url, key, slug, works, asks] = process.argv.slice(2);
const headers = { Authorization: `Bearer ${key}` };

class State {
  messages = [];
  status = 'ready';
  error = undefined;
  pushMessage = (message) => { this.messages = [...this.messages, message]; };
  popMessage = () => { this.messages = this.messages.slice(0, -1); };
  replaceMessage = (at, message) => { this.messages = this.messages.with(at, message); };
  snapshot = (value) => structuredClone(value);
}

class Chat extends AbstractChat {
  constructor(init) { super({ ...init, state: new State() }); }
}

// A chat with an agent, and what went wrong in it.
function talk(agent, more = {}) {
  const errors = [];
  const api = `${url}/v1/run/ai-sdk?agent=${agent}`;
  const transport = new DefaultChatTransport({ api, headers, ...more.transport });
  const chat = new Chat({ ...more, transport, onError: (error) => { errors.push(String(error)); more.onEnd?.(); } });
  return { chat, errors };
}

const texts = (message) => message.parts.filter((part) => part.type === 'text').map((part) => part.text);
const states = (message) => message.parts.filter((part) => part.type === 'dynamic-tool').map((part) => part.state);
const results = (message) => message.parts.filter((part) => part.type === 'data-tool-result').map((part) => part.data);

// A chat up to where it asks, and the promise of its last word once that is answered.
async function lookAround() {
  let finish;
  const over = new Promise((resolve) => { finish = resolve; });
  const { chat, errors } = talk(slug, {
    onEnd: finish,
    onFinish: ({ message }) => { if (message.parts.at(-1)?.type === 'text') finish(); },
    sendAutomaticallyWhen: lastAssistantMessageIsCompleteWithApprovalResponses,
  });
  await chat.sendMessage({ text: 'look around' });
  return { chat, errors, over };
}

async function approves() {
  const { chat, errors, over } = await lookAround();
  const asked = chat.messages.at(-1).parts.filter((part) => part.state === 'approval-requested');
  for (const part of asked) await chat.addToolApprovalResponse({ id: part.approval.id, approved: true });
  await over;
  const parts = chat.messages.at(-1).parts;
  return {
    errors,
    asked: asked.map((part) => part.toolName),
    outputs: parts.filter((part) => part.type === 'dynamic-tool').map((part) => part.output),
    texts: texts(chat.messages.at(-1)),
    roles: chat.messages.map((message) => message.role),
    threadId: chat.messages.at(-1).metadata.threadId,
  };
}

// Refuses what was asked, with a reason.
async function denies() {
  const { chat, errors, over } = await lookAround();
  const [asked] = chat.messages.at(-1).parts.filter((part) => part.state === 'approval-requested');
  await chat.addToolApprovalResponse({ id: asked.approval.id, approved: false, reason: 'too much' });
  await over;
  return { errors, states: states(chat.messages.at(-1)), texts: texts(chat.messages.at(-1)) };
}

// Says something else instead of answering the question.
async function says() {
  const { chat, errors } = talk(slug);
  await chat.sendMessage({ text: 'look around' });
  const asked = states(chat.messages.at(-1));
  await chat.sendMessage({ text: 'no!' });
  const last = chat.messages.at(-1);
  return {
    errors, asked, status: chat.status, texts: texts(last),
    results: results(last).map(({ toolName, failed }) => ({ toolName, failed })),
    roles: chat.messages.map((message) => message.role),
  };
}

// Stops reading while a command runs, and says something more; then it is as if the page had been loaded anew. It
// sends what is needed alone.
async function stops() {
  const isNeeded = (messageId) => (message, at, all) => at === all.length - 1 || message.id === messageId;
  const onlyNeeded = ({ messages, ...rest }) => (
    { body: { id: rest.id, trigger: rest.trigger, messageId: rest.messageId, messages: messages.filter(isNeeded(rest.messageId)) } });
  let reading;
  const runs = new Promise((resolve) => { reading = resolve; });
  const more = {
    id: 'one-that-is-resumed',
    onData: ({ type }) => { if (type === 'data-tool-output') reading(); },
    transport: { prepareSendMessagesRequest: onlyNeeded },
  };
  const { chat, errors } = talk(works, more);
  const first = chat.sendMessage({ text: 'work' });
  await runs;
  await chat.stop();
  await first;
  const { runId } = chat.messages.at(-1).metadata;
  let hears;
  const heard = new Promise((resolve) => { hears = resolve; });
  const later = talk(works, { ...more, onData: ({ type }) => { if (type === 'data-steering') hears(); } });
  later.chat.messages = chat.messages;
  const second = later.chat.sendMessage({ text: 'and tell me' });
  await heard;
  const again = talk(works, more);
  again.chat.messages = later.chat.messages.slice(0, -1);
  const resumed = again.chat.resumeStream();
  const run = await (await fetch(`${url}/v1/runs/${runId}`, { headers })).json();
  const command = JSON.stringify({ command: 'touch /workspace/go' });
  await fetch(`${url}/v1/sandboxes/${run.data.sandboxId}/exec`, {
    method: 'POST', body: command, headers: { ...headers, 'content-type': 'application/json' },
  });
  await Promise.all([second, resumed]);
  await again.chat.resumeStream();
  const [one, other] = [later.chat.messages.at(-1), again.chat.messages.at(-1)];
  return {
    errors: [...errors, ...later.errors, ...again.errors],
    results: results(one).map(({ toolName, failed }) => ({ toolName, failed })),
    texts: texts(one),
    resumed: texts(other),
    same: one.id === other.id,
    status: again.chat.status,
  };
}

async function agUi() {
  const agent = new HttpAgent({ url: `${url}/v1/run/ag-ui?agent=${slug}`, headers, threadId: 'a-thread' });
  agent.messages = [{ id: '1', role: 'user', content: 'look around' }];
  const interrupts = [];
  agent.subscribe({
    onRunFinishedEvent: ({ event }) => { interrupts.push(...(event.outcome?.interrupts ?? [])); },
  });
  await agent.runAgent({});
  const resume = interrupts.map((one) => ({
    interruptId: one.id, status: 'resolved', payload: { approved: true },
  }));
  await agent.runAgent({ resume });
  return {
    asked: interrupts.length,
    said: agent.messages.filter((one) => one.content).map((one) => [one.role, one.content]),
  };
}

// Says something in place of an answer: it sends nothing without naming all that it was asked.
async function agUiSays() {
  const agent = new HttpAgent({ url: `${url}/v1/run/ag-ui?agent=${slug}`, headers, threadId: 'says' });
  agent.messages = [{ id: '1', role: 'user', content: 'look around' }];
  await agent.runAgent({});
  const asked = agent.pendingInterrupts.length;
  agent.messages = [...agent.messages, { id: '2', role: 'user', content: 'not that, please' }];
  const refused = await agent.runAgent({}).then(() => false, () => true);
  await agent.runAgent({ resume: agent.pendingInterrupts.map(({ id }) => ({ interruptId: id, status: 'cancelled' })) });
  const said = agent.messages.filter((one) => one.content).map((one) => [one.role, one.content]);
  return { asked, refused, said, pending: agent.pendingInterrupts.length };
}

// An agent of AG-UI whose page carries a call out itself, and says where it is.
async function fronts() {
  const agent = new HttpAgent({ url: `${url}/v1/run/ag-ui?agent=${asks}`, headers, threadId: 'with-a-page' });
  agent.messages = [{ id: '1', role: 'user', content: 'where am I?' }];
  const tools = [{ name: 'where', description: 'Where the user is.', parameters: { type: 'object', properties: {} } }];
  const context = [{ description: 'the page', value: '/orders' }];
  const pending = [];
  agent.subscribe({ onRunFinishedEvent: ({ event }) => { pending.push(...(event.outcome?.pendingToolCallIds ?? [])); } });
  await agent.runAgent({ tools, context });
  for (const toolCallId of pending) agent.messages = [...agent.messages, { id: 't1', role: 'tool', toolCallId, content: 'Bern' }];
  await agent.runAgent({ tools, context });
  return { pending: pending.length, said: agent.messages.filter((one) => one.content).map((one) => [one.role, one.content]) };
}

// The same with a chat of the AI SDK, which sends the tools along by itself.
async function carries() {
  let finish;
  const over = new Promise((resolve) => { finish = resolve; });
  const tools = { where: { description: 'Where the user is.', parameters: { type: 'object', properties: {} } } };
  const { chat, errors } = talk(asks, {
    transport: { body: { tools } },
    onEnd: finish,
    onToolCall: ({ toolCall }) => {
      if (!toolCall.dynamic) chat.addToolOutput({ tool: toolCall.toolName, toolCallId: toolCall.toolCallId, output: { city: 'Bern' } });
    },
    onFinish: ({ message }) => { if (message.parts.at(-1)?.type === 'text') finish(); },
    sendAutomaticallyWhen: lastAssistantMessageIsCompleteWithToolCalls,
  });
  await chat.sendMessage({ text: 'where am I?' });
  await over;
  const last = chat.messages.at(-1);
  return {
    errors, texts: texts(last), roles: chat.messages.map((message) => message.role),
    tools: last.parts.filter((part) => part.toolCallId).map((part) => [part.type, part.state]),
  };
}

// Ends a command that waits for a file.
async function goes(runId) {
  const run = await (await fetch(`${url}/v1/runs/${runId}`, { headers })).json();
  const command = JSON.stringify({ command: 'touch /workspace/go' });
  await fetch(`${url}/v1/sandboxes/${run.data.sandboxId}/exec`, {
    method: 'POST', body: command, headers: { ...headers, 'content-type': 'application/json' },
  });
}

// A page is loaded anew while a command runs beside its own call; it says what came of that along with a word.
async function isLate() {
  const tools = { where: { description: 'Where the user is.', parameters: { type: 'object', properties: {} } } };
  let reading;
  const runs = new Promise((resolve) => { reading = resolve; });
  const more = {
    id: 'one-that-is-late',
    transport: { body: { tools } },
    onData: ({ type }) => { if (type === 'data-tool-output') reading(); },
  };
  const { chat, errors } = talk(asks, more);
  const first = chat.sendMessage({ text: 'work' });
  await runs;
  await chat.stop();
  await first;
  const { parts, metadata } = chat.messages.at(-1);
  const { toolCallId } = parts.find((part) => part.type === 'tool-where');
  let hears;
  const heard = new Promise((resolve) => { hears = resolve; });
  const later = talk(asks, { ...more, onData: ({ type }) => { if (type === 'data-steering') hears(); } });
  later.chat.messages = chat.messages;
  await later.chat.addToolOutput({ tool: 'where', toolCallId, output: { city: 'Bern' } });
  const second = later.chat.sendMessage({ text: 'and tell me' });
  await heard;
  await goes(metadata.runId);
  await second;
  return { errors: [...errors, ...later.errors], texts: texts(later.chat.messages.at(-1)) };
}

// The same with AG-UI, where the result is put behind its call after a word was said.
async function isLateToo() {
  const tools = [{ name: 'where', description: 'Where the user is.', parameters: { type: 'object', properties: {} } }];
  const agent = () => new HttpAgent({ url: `${url}/v1/run/ag-ui?agent=${asks}`, headers, threadId: 'late' });
  const reader = agent();
  reader.messages = [{ id: '1', role: 'user', content: 'work' }];
  let called;
  const calls = new Promise((resolve) => { called = resolve; });
  let taken;
  const isTaken = new Promise((resolve) => { taken = resolve; });
  reader.subscribe({
    onCustomEvent: ({ event }) => { if (event.name === 'tool-output') called(); },
    onToolCallResultEvent: ({ event }) => { if (event.content === 'Bern') taken(); },
  });
  const first = reader.runAgent({ tools });
  await calls;
  const [call] = reader.messages.flatMap((one) => one.toolCalls ?? []).filter((one) => one.function.name === 'where');
  const [runId] = call.id.split(':');
  const speaker = agent();
  const word = { id: '2', role: 'user', content: 'and tell me' };
  speaker.messages = [...structuredClone(reader.messages), word];
  let hears;
  const heard = new Promise((resolve) => { hears = resolve; });
  speaker.subscribe({ onCustomEvent: ({ event }) => { if (event.name === 'steering') hears(); } });
  const second = speaker.runAgent({ tools });
  await heard;
  const at = reader.messages.findIndex((one) => one.toolCalls?.some(({ id }) => id === call.id));
  const last = agent();
  const result = { id: 't', role: 'tool', toolCallId: call.id, content: 'Bern' };
  const said = { id: 'a', role: 'assistant', content: 'I am at it.' };
  last.messages = [...structuredClone(reader.messages).toSpliced(at + 1, 0, result), word, said];
  const third = last.runAgent({ tools });
  await isTaken;
  await goes(runId);
  await Promise.all([first, second, third]);
  return { said: reader.messages.filter((one) => one.content).map((one) => [one.role, one.content]) };
}

const played = { approves: await approves(), denies: await denies(), says: await says(), stops: await stops(), agUi: await agUi(), agUiSays: await agUiSays(), fronts: await fronts(), carries: await carries(), late: await isLate(), lateToo: await isLateToo() };
console.log(JSON.stringify(played));
