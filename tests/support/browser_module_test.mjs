/**
 * Promises of sync-ws.js that need a clock of their own: late timers, deadlines, limits, old sockets.
 * `test_browser.py` runs this with node; the module sees a fake WebSocket, fake timers and fake clocks.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { beforeEach, test } from "node:test";

// As a data URL, because older versions of node take no .js file without a package.json for an ES module.
const source = readFileSync(new URL("../../sync_ws/browser/sync-ws.js", import.meta.url), "utf8");
const { EventBus, ModeCode, SyncWebSocket, backoffDelay } =
  await import(`data:text/javascript,${encodeURIComponent(source)}%0A//%23 sourceURL=sync-ws.js`);

let now; // of both clocks, in milliseconds
let timers;
let sockets;
let listeners;
let reported;

class FakeSocket {
  constructor(url, protocols) {
    if (url === "bad") throw new SyntaxError("bad URL");
    Object.assign(this, { url, protocols, sent: [], closed: null });
    sockets.push(this);
  }
  send(data) {
    this.sent.push(data);
  }
  close(...args) {
    this.closed ??= args;
  }
}

const realSetTimeout = globalThis.setTimeout;
const realClearTimeout = globalThis.clearTimeout;
const settled = () => new Promise((resolve) => setImmediate(resolve)); // after all microtasks

beforeEach(() => {
  now = 1000;
  timers = new Map();
  sockets = [];
  listeners = new Map();
  reported = [];
  globalThis.WebSocket = FakeSocket;
  globalThis.addEventListener = (event, listener) => listeners.set(event, listener);
  globalThis.removeEventListener = (event) => listeners.delete(event);
  globalThis.reportError = (error) => reported.push(error);
  performance.now = () => now;
  Date.now = () => 1_700_000_000_000 + now;
  // Only the module's timers are faked, not those of the test runner: they are told by who asks.
  globalThis.setTimeout = (action, delay, ...rest) => {
    if (!new Error().stack.includes("sync-ws.js")) return realSetTimeout(action, delay, ...rest);
    const timer = { action, due: now + delay };
    timers.set(timer, timer);
    return timer;
  };
  globalThis.clearTimeout = (timer) => (timers.delete(timer) ? undefined : realClearTimeout(timer));
});

/** Lets time pass; `late`: and then everything that is due runs only now, as after a sleep. */
async function pass(milliseconds, { late = false } = {}) {
  const end = now + milliseconds;
  if (late) now = end;
  for (;;) {
    assert.ok(timers.size <= 1, "more than one timer");
    const [timer] = timers.values();
    if (!timer || timer.due > end) break;
    timers.delete(timer);
    now = Math.max(now, timer.due);
    timer.action();
    await settled();
  }
  now = end;
  await settled();
}

function make(options = {}, url = "ws://test/") {
  const socket = new SyncWebSocket(url, options);
  const events = [];
  for (const event of ["state", "open", "message", "close", "heartbeat", "reconnecting", "reconnected"]) {
    socket.on(event, (detail) => events.push([event, detail]));
  }
  const named = (name) => events.filter(([event]) => event === name).map(([, detail]) => detail);
  return { socket, events, named };
}

async function open(options, url) {
  const made = make(options, url);
  made.socket.connect();
  sockets.at(-1).onopen();
  await settled();
  return made;
}

async function lose(code = 1006, reason = "") {
  sockets.at(-1).onclose({ code, reason, wasClean: code !== 1006 });
  await settled();
}

const beats = (socket) => socket.sent.filter((text) => JSON.parse(text).ModeCode === ModeCode.HEART_BEAT);
test("a handler that throws is reported and does not stop the rest", () => {
  const bus = new EventBus();
  const seen = [];
  bus.on("x", () => { throw new Error("mine"); });
  const off = bus.on("x", (value) => seen.push(value));
  bus.emit("x", 1);
  off();
  bus.emit("x", 2);
  assert.deepEqual(seen, [1]);
  assert.equal(reported.length, 2);
});

test("once is once, also when a handler emits", () => {
  const bus = new EventBus();
  const seen = [];
  bus.on("x", (value) => { if (value === 1) bus.emit("x", 2); });
  bus.once("x", (value) => seen.push(value));
  bus.emit("x", 1);
  bus.emit("x", 3);
  assert.deepEqual(seen, [2]);
});

test("backoff: fixed, or full jitter under a doubling and bounded ceiling", () => {
  assert.equal(backoffDelay(10_000, 7), 10_000);
  const ceiling = (attempt) => backoffDelay({ first: 500, maximum: 60_000 }, attempt, () => 1);
  assert.deepEqual([1, 2, 3, 8, 5000].map(ceiling), [500, 1000, 2000, 60_000, 60_000]);
  assert.equal(backoffDelay({ first: 500, maximum: 60_000 }, 3, () => 0.25), 500);
});

test("options that would make a busy loop are refused", () => {
  for (const options of [
    { reconnect: 0 }, { reconnect: NaN }, { reconnect: {} }, { reconnect: { first: 0, maximum: 5 } },
    { timeout: 0 }, { timeout: "3000" }, { interval: -1 }, { interval: 2 ** 31 },
  ]) {
    assert.throws(() => new SyncWebSocket("ws://test/", options), RangeError);
  }
});

test("every interval one heartbeat, and its answer gives the round trip time", async () => {
  const { socket, named } = await open();
  for (let count = 1; count <= 3; count += 1) {
    await pass(30_000 - (count > 1 ? 40 : 0));
    assert.equal(beats(sockets[0]).length, count);
    now += 40;
    sockets[0].onmessage({ data: sockets[0].sent.at(-1) });
    await settled();
  }
  assert.deepEqual(named("heartbeat"), [{ rtt: 40 }, { rtt: 40 }, { rtt: 40 }]);
  assert.deepEqual(named("message"), []);
  assert.equal(socket.rtt, 40);
});

test("without an answer the socket is abandoned at once, and another follows after the delay", async () => {
  const { socket, named } = await open();
  const old = sockets[0];
  await pass(32_999);
  assert.equal(socket.state, "open");
  await pass(1);
  assert.equal(socket.state, "waiting");
  assert.ok(old.closed);
  assert.equal(old.onmessage, null);
  const [{ at, ...next }] = named("reconnecting");
  assert.deepEqual(next, { attempt: 1, delay: 10_000, reason: "no answer to a heartbeat within 3 s" });
  assert.equal(at, now + 10_000);
  await pass(10_000);
  assert.equal(sockets.length, 2);
  sockets[1].onopen();
  await settled();
  assert.deepEqual(named("reconnected"), [{ attempts: 1 }]);
});

test("any message is a sign of life", async () => {
  const { socket } = await open();
  await pass(30_000);
  sockets[0].onmessage({ data: "anything" });
  await pass(29_999);
  assert.equal(socket.state, "open");
  assert.equal(beats(sockets[0]).length, 1);
});

test("a timer that fires late, after a sleep, starts afresh instead of declaring a death", async () => {
  const { socket, named } = await open();
  await pass(30_000);
  await pass(3_600_000, { late: true });
  assert.equal(socket.state, "open");
  sockets[0].onmessage({ data: sockets[0].sent.at(-1) }); // had been unread behind the timer
  await pass(2_999);
  assert.equal(socket.state, "open");
  assert.deepEqual(named("heartbeat"), [], "an hour of sleep is no round trip time");
});

test("a sleep that only the wall clock saw counts as one too", async () => {
  const { socket } = await open();
  await pass(30_000);
  const wall = Date.now;
  Date.now = () => wall() + 3_600_000;
  await pass(3_000);
  assert.equal(socket.state, "open");
  await pass(3_000);
  assert.equal(socket.state, "waiting");
});

test("timers that are always late end in a reconnect all the same", async () => {
  const { socket } = await open();
  await pass(30_000);
  for (let minute = 0; minute < 4; minute += 1) await pass(60_000, { late: true });
  assert.notEqual(socket.state, "open");
});

test("late events of an old socket change nothing", async () => {
  const { socket, events } = await open();
  const { onopen, onmessage, onclose } = sockets[0];
  await lose();
  await pass(10_000);
  const before = events.length;
  onopen();
  onmessage({ data: "old" });
  onclose({ code: 1000, reason: "old", wasClean: true });
  await settled();
  assert.equal(socket.state, "connecting");
  assert.equal(events.length, before);
});

test("permanent close codes end it, all others reconnect", async () => {
  for (const code of [1000, 1002, 1003, 1007, 1008, 1009, 1010, 4009]) {
    const { socket, named } = await open();
    await lose(code, "reason");
    assert.equal(socket.state, "closed", String(code));
    const end = { code, reason: "reason", wasClean: true, reconnecting: false, undelivered: [] };
    assert.deepEqual(named("close"), [end]);
    assert.equal(timers.size, 0);
  }
  for (const code of [1001, 1005, 1006, 1011, 1012, 1013, 1014, 1015, 3000, 4000]) {
    const { socket } = await open();
    await lose(code);
    assert.equal(socket.state, "waiting", String(code));
    socket.close();
  }
});

test("an attempt has a deadline", async () => {
  const { socket, named } = make();
  socket.connect();
  await pass(10_000);
  assert.equal(socket.state, "waiting");
  assert.ok(sockets[0].closed);
  assert.equal(named("reconnecting")[0].reason, "no connection within 10 s");
});

test("the queue is bounded in messages, and delivered in order", async () => {
  const { socket } = await open();
  await lose();
  for (let count = 0; count < 64; count += 1) socket.send({ count });
  assert.throws(() => socket.send("one more"), /queue is full/);
  await pass(10_000);
  sockets[1].onopen();
  assert.deepEqual(sockets[1].sent.map((text) => JSON.parse(text).count), [...Array(64).keys()]);
  assert.equal(socket.queued, 0);
});

test("the queue is bounded in bytes of UTF-8, and keeps copies", async () => {
  const { socket } = make();
  socket.send("é".repeat(512 * 1024 - 2));
  const buffer = new Uint8Array([1, 2, 3, 4]);
  socket.send(buffer.subarray(1, 3));
  buffer.fill(9);
  assert.throws(() => socket.send("xxx"), /queue is full/);
  socket.connect();
  sockets[0].onopen();
  assert.deepEqual([...new Uint8Array(await sockets[0].sent[1].arrayBuffer())], [2, 3]);
});

test("close stays closed, in every state, and connect works again", async () => {
  for (const state of ["connecting", "open", "waiting"]) {
    const { socket, named } = make();
    socket.connect();
    if (state !== "connecting") sockets.at(-1).onopen();
    if (state === "waiting") await lose();
    assert.equal(socket.state, state);
    const count = sockets.length;
    socket.close();
    if (state === "open") sockets.at(-1).onclose({ code: 1000, reason: "", wasClean: true });
    await pass(100_000);
    assert.equal(socket.state, "closed");
    assert.equal(sockets.length, count);
    assert.equal(named("close").at(-1).reconnecting, false);
    assert.equal(listeners.size, 0);
    assert.throws(() => socket.send("x"), /closed/);
    socket.connect();
    sockets.at(-1).onopen();
    assert.equal(socket.state, "open");
    socket.close();
    await pass(5_000);
  }
});

test("a peer that does not answer the close is not waited for longer than 5 s", async () => {
  const { socket, named } = await open();
  socket.close(1000, "bye");
  assert.deepEqual(sockets[0].closed, [1000, "bye"]);
  await pass(4_999);
  assert.equal(socket.state, "closing");
  await pass(1);
  assert.equal(socket.state, "closed");
  assert.equal(named("close")[0].wasClean, false);
});

test("a close inside a handler is the last thing that happens", async () => {
  const { socket, events } = await open();
  socket.on("state", ({ state }) => { if (state === "waiting") socket.close(); });
  socket.send("on its way");
  await lose();
  await pass(100_000);
  const last = events.slice(-3).map(([event, detail]) => detail.state ?? event);
  assert.deepEqual(last, ["waiting", "closed", "close"]);
  assert.equal(sockets.length, 1);
});

test("what is still queued at the end is handed back", async () => {
  const { socket, named } = await open();
  await lose();
  socket.send("a");
  socket.send("b");
  socket.close();
  await settled();
  assert.deepEqual(named("close").at(-1).undelivered, ["a", "b"]);
});

test("connect twice makes one socket; connect while waiting tries at once", async () => {
  const { socket } = make();
  socket.connect();
  socket.connect();
  assert.equal(sockets.length, 1);
  await lose();
  socket.connect();
  assert.equal(sockets.length, 2);
  await pass(9_999);
  assert.equal(sockets.length, 2);
});

test("the network coming back: waiting tries at once, open asks at once", async () => {
  const { socket } = await open();
  listeners.get("online")();
  assert.equal(beats(sockets[0]).length, 1);
  listeners.get("online")();
  assert.equal(beats(sockets[0]).length, 1);
  await lose();
  listeners.get("online")();
  assert.equal(sockets.length, 2);
  assert.equal(socket.state, "connecting");
});

test("the backoff goes on after a connection that did not hold, and is new after one that did", async () => {
  const random = Math.random;
  Math.random = () => 0.5;
  try {
    const { named } = await open({ reconnect: { first: 1000, maximum: 60_000 }, interval: null });
    for (const held of [0, 0, 59_999, 60_000]) {
      await pass(held);
      await lose();
      await pass(2000);
      sockets.at(-1).onopen();
      await settled();
    }
    assert.deepEqual(named("reconnecting").map(({ attempt, delay }) => [attempt, delay]),
      [[1, 500], [1, 1000], [1, 2000], [1, 500]]);
  } finally {
    Math.random = random;
  }
});

test("a URL function is asked before every attempt; a bad URL is the end", async () => {
  const urls = ["ws://test/1", "ws://test/2", "bad"];
  const { socket, named } = make({}, () => urls.shift());
  socket.connect();
  await lose();
  await pass(10_000);
  assert.equal(sockets[1].url, "ws://test/2");
  await lose();
  await pass(10_000);
  assert.equal(socket.state, "closed");
  assert.match(named("close").at(-1).reason, /bad URL/);
});

test("shouldReconnect decides, and when it throws that is the end, reported", async () => {
  class Stubborn extends SyncWebSocket {
    shouldReconnect({ code }) {
      if (code === 4009) throw new Error("mine");
      return true;
    }
  }
  const socket = new Stubborn("ws://test/");
  socket.connect();
  await lose(1000);
  assert.equal(socket.state, "waiting");
  await pass(10_000);
  await lose(4009);
  assert.equal(socket.state, "closed");
  assert.equal(reported.length, 1);
});
