// OpenFeature's own clients, asked by the tests: one JSON question a line in, one JSON answer a line out.
// Arguments: server or web, and the base URL. The token comes in the environment.
import { createInterface } from 'node:readline';

const [kind, baseUrl] = process.argv.slice(2);
const headers = [['Authorization', `Bearer ${process.env.TOKEN}`]];

// What goes over the wire, so that a test sees whether a client was told that nothing changed.
const statuses = [];
const fetchImplementation = async (...request) => {
  const response = await fetch(...request);
  statuses.push(response.status);
  return response;
};

async function serverClient() {
  const { OpenFeature } = await import('@openfeature/server-sdk');
  const { OFREPProvider } = await import('@openfeature/ofrep-provider');
  await OpenFeature.setProviderAndWait(new OFREPProvider({ baseUrl, headers, fetchImplementation }));
  const client = OpenFeature.getClient();
  return ({ key, context }) => client.getBooleanDetails(key, false, context);
}

async function webClient() {
  const { OpenFeature } = await import('@openfeature/web-sdk');
  const { OFREPWebProvider } = await import('@openfeature/ofrep-web-provider');
  let provider = null;
  return async ({ key, context }) => {
    await OpenFeature.setContext(context);
    if (provider === null) {
      provider = new OFREPWebProvider({ baseUrl, headers, fetchImplementation, pollInterval: 0 });
      await OpenFeature.setProviderAndWait(provider);
    }
    return OpenFeature.getClient().getBooleanDetails(key, false);
  };
}

const ask = await (kind === 'web' ? webClient() : serverClient());
for await (const line of createInterface({ input: process.stdin })) {
  statuses.length = 0;
  let answer;
  try {
    answer = await ask(JSON.parse(line));
  } catch (error) {
    answer = { thrown: String(error) };
  }
  process.stdout.write(JSON.stringify({ ...answer, statuses }) + '\n');
}
process.exit(0);
