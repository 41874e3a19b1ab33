// What existing front ends do, with their own code: a chat of the AI SDK, and an agent of AG-UI.
// Prints what came of it as one JSON document.
import { AbstractChat, DefaultChatTransport, lastAssistantMessageIsCompleteWithApprovalResponses } from 'ai';
import { HttpAgent } from '@ag-ui/client';

const [url, key, slug] = process.argv.slice(2);
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

async function aiSdk() {
  const errors = [];
  let finish;
  const over = new Promise((resolve) => { finish = resolve; });
  const chat = new Chat({
    transport: new DefaultChatTransport({ api: `${url}/v1/run/ai-sdk?agent=${slug}`, headers }),
    onError: (error) => { errors.push(String(error)); finish(); },
    onFinish: ({ message }) => { if (message.parts.at(-1)?.type === 'text') finish(); },
    sendAutomaticallyWhen: lastAssistantMessageIsCompleteWithApprovalResponses,
  });
  await chat.sendMessage({ text: 'look around' });
  const asked = chat.messages.at(-1).parts.filter((part) => part.state === 'approval-requested');
  for (const part of asked) await chat.addToolApprovalResponse({ id: part.approval.id, approved: true });
  await over;
  const parts = chat.messages.at(-1).parts;
  return {
    errors,
    asked: asked.map((part) => part.toolName),
    outputs: parts.filter((part) => part.type === 'dynamic-tool').map((part) => part.output),
    texts: parts.filter((part) => part.type === 'text').map((part) => part.text),
    roles: chat.messages.map((message) => message.role),
    threadId: chat.messages.at(-1).metadata.threadId,
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

console.log(JSON.stringify({ aiSdk: await aiSdk(), agUi: await agUi() }));
