// OpenAI's client for JavaScript against a running service: node openai_client.mjs <client's package> <url> <key> <model>.
// Prints one JSON object with what it got; tests/e2e/test_openai_sdk.py reads it.
import { createRequire } from "node:module";

const [where, baseURL, apiKey, model] = process.argv.slice(2);
const { default: OpenAI } = createRequire(where)("openai");
const client = new OpenAI({ baseURL, apiKey });
const messages = [{ role: "user", content: "Say something." }];

const models = [];
for await (const each of await client.models.list()) models.push(each.id);
const whole = await client.chat.completions.create({ model, messages });
let streamed = "";
let usage = null;
const stream = await client.chat.completions.create({
  model, messages, stream: true, stream_options: { include_usage: true },
});
for await (const chunk of stream) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
  usage = chunk.usage ?? usage;
}
let refused = null;
try {
  await client.chat.completions.create({ model: "no-such-model", messages });
} catch (error) {
  refused = { name: error.constructor.name, status: error.status, code: error.code, requestId: error.requestID };
}
console.log(JSON.stringify({ models, whole: whole.choices[0].message.content, streamed, usage, refused }));
