// Follows the events of a hive on NATS: one line of JSON for each, in the order of their positions, from a position on.
//
//   npm ci
//   node follow.js --server nats://127.0.0.1:4222 --from 1
//
// Nothing is acknowledged and nothing is kept on the server: where to go on is a number, yours to remember.

import { createHash } from "node:crypto";
import { once } from "node:events";
import { parseArgs } from "node:util";
import { DeliverPolicy, jetstream } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";

// Texts that may hold anything are percent-encoded in headers.
const TEXTS = ["Stream", "Correlation-Id", "Causation-Id", "Source", "Decided-By", "Metadata"];

function decode(message) {
  const header = (name) => {
    if (!message.headers?.has(`Hive-${name}`)) return null;
    const value = message.headers.get(`Hive-${name}`);
    return TEXTS.includes(name) ? decodeURIComponent(value) : value;
  };
  const number = (name) => (header(name) === null ? null : Number(header(name)));
  return {
    position: message.seq,
    topic: message.subject.split(".").slice(3).join("."),
    id: header("Event-Id"),
    stream: header("Stream"),
    version: number("Version"),
    correlation_id: header("Correlation-Id"),
    causation_id: header("Causation-Id"),
    cause_position: number("Cause-Position"),
    decided_by: header("Decided-By"),
    source: header("Source"),
    schema_version: number("Schema-Version"),
    metadata: header("Metadata"),
    append_first: number("Append-First"),
    occurred_at: number("Occurred-At"), // microseconds since 1970
    recorded_at: number("Recorded-At"),
    digest: header("Digest"),
    // An event that is larger than the server's messages is in the database only, under this name.
    blob: header("Blob"),
    payload: header("Blob") === null ? message.json() : null,
  };
}

// Every event of the present epoch from a position on, for ever; without one, all that the stream has.
async function* events(connection, hive, from) {
  const client = jetstream(connection);
  const streams = (await client.jetstreamManager()).streams;
  const { config, state } = await streams.info(await streams.find(`hive.${hive}.events.>`));
  let expected = from ?? state.first_seq;
  if (expected < state.first_seq) {
    throw new Error(`NATS has no position before ${state.first_seq} (any more); they are in the hive's database`);
  }
  const consumer = await client.consumers.get(config.name, {
    deliver_policy: DeliverPolicy.StartSequence,
    opt_start_seq: expected,
  });
  const messages = await consumer.consume({ max_messages: 5000 });
  let over = null;
  const heads = connection.subscribe(`hive.${hive}.head`, {
    callback: (_, said) => {
      const { epoch, epoch_id } = said.json();
      if (epoch_id === config.metadata.hive_epoch_id) return;
      over = new Error(`epoch ${epoch} began behind position ${expected - 1}: the database was restored, copied or promoted`);
      messages.stop();
    },
  });
  try {
    for await (const message of messages) {
      if (message.seq !== expected) throw new Error(`expected position ${expected}, found ${message.seq}`);
      const event = decode(message);
      const digest = createHash("sha256").update(message.data).digest("hex");
      if (event.blob === null && digest !== event.digest) throw new Error(`position ${message.seq} is damaged`);
      yield event;
      expected += 1;
    }
    if (over !== null) throw over;
  } finally {
    heads.unsubscribe();
    messages.stop();
  }
}

async function main() {
  const { values } = parseArgs({
    options: {
      server: { type: "string", default: "nats://127.0.0.1:4222" },
      hive: { type: "string", default: "hive" },
      from: { type: "string" },
      until: { type: "string" },
    },
  });
  const from = values.from === undefined ? undefined : Number(values.from);
  const until = Number(values.until ?? Infinity);
  const connection = await connect({ servers: values.server });
  try {
    for await (const event of events(connection, values.hive, from)) {
      if (!process.stdout.write(`${JSON.stringify(event)}\n`)) await once(process.stdout, "drain");
      if (event.position >= until) break;
    }
  } finally {
    await connection.close();
  }
}

await main();
