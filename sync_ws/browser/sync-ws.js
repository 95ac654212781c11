/**
 * A WebSocket for pages that stays connected: heartbeat, reconnect, and a queue for the time in between.
 *
 *     import { SyncWebSocket } from "/sync_ws/sync-ws.js";
 *     const socket = new SyncWebSocket(`ws://${location.host}/ws/?name=test`);
 *     socket.on("message", ({ data }) => console.log(data));
 *     socket.connect();
 *     socket.send({ ModeCode: "message", msg: "hello" });
 *
 * Why so:
 * - A page sees neither pings nor TCP: that the peer is alive shows only in messages. So the heartbeat is one
 *   (`ModeCode.HEART_BEAT`), which the server sends back unchanged. Any message counts as a sign of life.
 * - A dead peer takes no part in a closing handshake: its socket is abandoned (handlers off, closed).
 * - There is one socket and one timer at any time. Each socket has a generation number, and what an old one
 *   still reports is ignored.
 * - Handlers run from a microtask, never inside a method here: they may call anything, and always find
 *   the state settled. After `close()` nothing is emitted but the change of state and the one "close".
 * - Browsers hide from pages why a handshake failed: a refusal by HTTP status is tried again like any other.
 *
 * All times are milliseconds; points in time are those of `performance.now()`, which no one can set.
 */

/** The kinds of message envelopes: `{"ModeCode": ..., "msg": ...}`. */
export const ModeCode = Object.freeze({ MESSAGE: "message", HEART_BEAT: "heart_beat", ERROR: "error" });

/** @typedef {"idle"|"connecting"|"open"|"waiting"|"closing"|"closed"} State */

/** Every legal step between the states; any other is a defect of this module, and throws. */
const TRANSITIONS = Object.freeze({
  idle: ["connecting"],
  connecting: ["open", "waiting", "closed"],
  open: ["waiting", "closing", "closed"],
  waiting: ["connecting", "closed"],
  closing: ["closed"],
  closed: ["connecting"],
});

/**
 * Close codes (RFC 6455, 7.4.1) after which trying again would only fail again: a normal end, a defect of one
 * side, and 4009, "replaced by a newer connection of this name": two holders of a name must not fight for it.
 */
const PERMANENT = Object.freeze([1000, 1002, 1003, 1007, 1008, 1009, 1010, 4009]);
const NORMAL_CLOSURE = 1000;
const ABNORMAL_CLOSURE = 1006; // no Close frame came

const OPENING_DEADLINE = 10_000;
const CLOSING_DEADLINE = 5_000;
const STABLE_AFTER = 60_000; // a connection that held this long starts the backoff afresh
const MAX_QUEUED_MESSAGES = 64;
const MAX_QUEUED_BYTES = 1024 * 1024;
const MAX_DELAY = 2 ** 31 - 1; // beyond this setTimeout fires at once

/**
 * How often in a row a late deadline starts afresh. A machine that slept needs one. Without a bound, a hidden
 * tab whose timers are always late (browsers throttle them to one a minute) would never notice a dead peer.
 */
const FRESH_STARTS = 3;

/**
 * How long to wait before an attempt; pure.
 * @param {number | {first: number, maximum: number}} policy fixed, or the bounds of an exponential one
 * @param {number} attempt 1, 2, ...
 * @param {() => number} [random] in [0, 1); full jitter, so that a thousand pages do not come back in step
 * @returns {number} milliseconds
 */
export function backoffDelay(policy, attempt, random = Math.random) {
  if (typeof policy === "number") return policy;
  return random() * Math.min(policy.maximum, policy.first * 2 ** (attempt - 1));
}

/** A delay of 0 would be a busy loop. @param {Record<string, number>} delays by option */
function checkDelays(delays) {
  for (const [option, delay] of Object.entries(delays)) {
    if (typeof delay === "number" && delay > 0 && delay <= MAX_DELAY) continue;
    throw new RangeError(`${option} must be above 0 and at most ${MAX_DELAY} milliseconds, not ${delay}`);
  }
}

/** Where a page's uncaught errors go (window.onerror), without ending what called the handler. */
function report(error) {
  if (typeof globalThis.reportError === "function") globalThis.reportError(error);
  else console.error(error);
}

/** Publish and subscribe, by event name. Handlers are called in the order of subscription. */
export class EventBus {
  #entries = new Map();

  /** @param {string} event @param {(detail: any) => void} handler @returns {() => void} takes it off again */
  on(event, handler) {
    return this.#add(event, { handler, once: false });
  }

  /** Like `on`, for the next event only. @param {string} event @param {(detail: any) => void} handler */
  once(event, handler) {
    return this.#add(event, { handler, once: true });
  }

  /** Takes a handler off; an unknown one does not matter. @param {string} event @param {Function} handler */
  off(event, handler) {
    this.#keep(event, (entry) => entry.handler !== handler);
  }

  /** Calls the handlers of this moment; one that throws is reported, and does not stop the rest. */
  emit(event, detail) {
    for (const entry of this.#entries.get(event) ?? []) {
      if (entry.spent) continue;
      if (entry.once) {
        entry.spent = true; // an emit inside the handler must not find it again
        this.#keep(event, (other) => other !== entry);
      }
      try {
        entry.handler(detail);
      } catch (error) {
        report(error);
      }
    }
  }

  #add(event, entry) {
    if (typeof entry.handler !== "function") throw new TypeError("an event handler must be a function");
    // Always a new array: an emit under way goes on with the handlers it began with.
    this.#entries.set(event, [...(this.#entries.get(event) ?? []), entry]);
    return () => this.#keep(event, (other) => other !== entry);
  }

  #keep(event, wanted) {
    this.#entries.set(event, (this.#entries.get(event) ?? []).filter(wanted));
  }
}

/** The envelope `{ModeCode, msg}` in a message, or null when it holds none. */
function envelopeIn(data) {
  if (typeof data !== "string" || !data.startsWith("{")) return null;
  try {
    const value = JSON.parse(data);
    return typeof value.ModeCode === "string" ? value : null;
  } catch {
    return null;
  }
}

function encode(data) {
  if (typeof data === "string" || data instanceof Blob) return data;
  if (data instanceof ArrayBuffer || ArrayBuffer.isView(data)) return data;
  const text = JSON.stringify(data);
  if (text === undefined) throw new TypeError("neither a string nor binary data nor expressible as JSON");
  return text;
}

/**
 * A WebSocket that reconnects by itself. Events, and what their handlers get:
 * - `state` {state, previous}
 * - `open` {attempts}: how many attempts it took after a loss, 0 the first time
 * - `reconnected` {attempts}: after `open`, when a connection or an attempt had failed before
 * - `message` {data, envelope}: a string or an ArrayBuffer, and the `{ModeCode, msg}` in it or null
 * - `heartbeat` {rtt}: one was answered, after this round trip time; never comes as `message`
 * - `close` {code, reason, wasClean, reconnecting, undelivered}: a connection or an attempt has ended;
 *   `reconnecting`: another will follow; if not, `undelivered` holds what was still queued (binary as Blob)
 * - `reconnecting` {attempt, delay, at, reason}: the next attempt comes in `delay`, at the time `at`
 */
export class SyncWebSocket extends EventBus {
  #url;
  #options;
  /** @type {State} */
  #state = "idle";
  #socket = null;
  #generation = 0;
  #timer;
  #attempt = 0; // since the last open connection
  #step = 0; // of the backoff; unlike #attempt it survives connections that do not hold
  #openedAt = null; // null while the socket is not open
  #queue = [];
  #queuedBytes = 0;
  #unanswered = false; // a heartbeat is out, and nothing at all has come since
  #beatTime = null; // the sent time whose return gives the next round trip time
  #beatAt = 0;
  #rtt = null;
  #pending = []; // events to emit
  #wake = () => this.#woken();

  /**
   * @param {string | (() => string)} url a function is called before every attempt (tokens expire)
   * @param {object} [options]
   * @param {number | null} [options.interval] between heartbeats; null: none
   * @param {number} [options.timeout] a heartbeat without any message after it for this long: dead
   * @param {number | {first: number, maximum: number} | null} [options.reconnect] fixed delay; or the bounds
   *   of an exponential backoff with full jitter; null: never
   * @param {string | string[]} [options.protocols] subprotocols to offer
   * @throws {RangeError}
   */
  constructor(url, { interval = 30_000, timeout = 3_000, reconnect = 10_000, protocols = [] } = {}) {
    super();
    checkDelays({ timeout, interval: interval ?? MAX_DELAY });
    if (typeof reconnect === "number") checkDelays({ reconnect });
    else if (reconnect !== null) checkDelays({ first: reconnect.first, maximum: reconnect.maximum });
    this.#url = url;
    this.#options = { interval, timeout, reconnect, protocols };
  }

  /** @returns {State} */
  get state() { return this.#state; }

  /** Round trip time of this connection's last answered heartbeat, or null. */
  get rtt() { return this.#rtt; }

  /** How many messages wait for a connection. */
  get queued() { return this.#queue.length; }

  /** Connects, also after `close()`. While waiting: tries at once. While connecting or open: nothing. */
  connect() {
    if (this.#state === "connecting" || this.#state === "open") return;
    if (this.#state === "closing") this.#ended(ABNORMAL_CLOSURE, "the closing handshake was cut short");
    if (this.#state !== "waiting") {
      this.#attempt = this.#step = 0;
      this.#watch("addEventListener");
    }
    this.#dial();
  }

  /**
   * Sends; before and between connections it queues, in order, up to 64 messages and 1 MiB. Sent means handed
   * to the browser: what was on its way when a connection died may be lost.
   * @param {string | object} data an object goes as JSON; an ArrayBuffer, its views and a Blob go as binary
   * @throws {Error} when closing or closed, and when the queue is full
   */
  send(data) {
    if (this.#state === "closing" || this.#state === "closed") throw new Error(`cannot send: ${this.#state}`);
    const encoded = encode(data);
    if (this.#state === "open") this.#socket.send(encoded);
    else this.#enqueue(encoded);
  }

  /**
   * Closes, whatever the state, and stays closed until `connect()`.
   * @param {number} [code] 1000, or 3000 to 4999
   * @param {string} [reason] at most 123 bytes
   */
  close(code = NORMAL_CLOSURE, reason = "") {
    if (this.#state === "open") {
      this.#socket.close(code, reason); // first, as it throws when code or reason are not allowed
      this.#pending.length = 0;
      this.#move("closing");
      this.#arm(CLOSING_DEADLINE, () => this.#ended(ABNORMAL_CLOSURE, "no answer to the closing handshake"));
    } else if (this.#state === "connecting" || this.#state === "waiting") {
      this.#pending.length = 0;
      this.#finish({ code, reason, wasClean: true }); // nothing was open that could have ended badly
    }
  }

  /**
   * Decides, after an end nobody here asked for, whether to try again. For subclasses to override.
   * @param {{code: number, reason: string, wasClean: boolean}} end
   * @returns {boolean}
   */
  shouldReconnect(end) {
    return !PERMANENT.includes(end.code);
  }

  #dial() {
    this.#disarm();
    this.#move("connecting");
    const generation = ++this.#generation;
    let socket;
    try {
      const url = typeof this.#url === "function" ? this.#url() : this.#url;
      if (generation !== this.#generation) return; // the function called close()
      socket = new WebSocket(url, this.#options.protocols);
    } catch (error) {
      report(error);
      this.#finish({ code: ABNORMAL_CLOSURE, reason: String(error), wasClean: false }); // a bad URL stays bad
      return;
    }
    const ifCurrent = (handler) => (event) => {
      if (generation === this.#generation) handler(event);
    };
    socket.binaryType = "arraybuffer";
    socket.onopen = ifCurrent(() => this.#opened());
    socket.onmessage = ifCurrent((event) => this.#received(event.data));
    socket.onclose = ifCurrent((event) => this.#ended(event.code, event.reason, event.wasClean));
    this.#socket = socket;
    const reason = `no connection within ${OPENING_DEADLINE / 1000} s`;
    this.#arm(OPENING_DEADLINE, () => this.#ended(ABNORMAL_CLOSURE, reason), FRESH_STARTS);
  }

  #opened() {
    this.#move("open");
    this.#openedAt = performance.now();
    const attempts = this.#attempt;
    this.#attempt = 0;
    this.#unanswered = false;
    this.#beatTime = this.#rtt = null;
    this.#scheduleBeat(this.#openedAt);
    for (const encoded of this.#takeQueue()) this.#socket.send(encoded);
    this.#post("open", { attempts });
    if (attempts) this.#post("reconnected", { attempts });
  }

  #received(data) {
    if (this.#state !== "open") return;
    if (this.#unanswered) {
      this.#unanswered = false;
      this.#scheduleBeat(this.#beatAt);
    }
    const envelope = envelopeIn(data);
    if (envelope?.ModeCode !== ModeCode.HEART_BEAT) this.#post("message", { data, envelope });
    else if (this.#beatTime !== null && envelope.msg === this.#beatTime) this.#measure();
  }

  #measure() {
    const rtt = performance.now() - this.#beatAt;
    this.#beatTime = null;
    if (rtt > this.#options.timeout) return; // the machine slept in between, and this measures nothing
    this.#rtt = rtt;
    this.#post("heartbeat", { rtt });
  }

  #scheduleBeat(since) {
    this.#disarm();
    const { interval } = this.#options;
    if (interval !== null) this.#arm(Math.max(0, since + interval - performance.now()), () => this.#beat());
  }

  #beat() {
    this.#unanswered = true;
    this.#beatTime = new Date().toISOString();
    this.#beatAt = performance.now();
    this.#socket.send(JSON.stringify({ ModeCode: ModeCode.HEART_BEAT, msg: this.#beatTime }));
    const { timeout } = this.#options;
    const reason = `no answer to a heartbeat within ${timeout / 1000} s`;
    this.#arm(timeout, () => this.#ended(ABNORMAL_CLOSURE, reason), FRESH_STARTS);
  }

  /** Network or page are back: no reason to wait any longer, nor to trust an open connection unasked. */
  #woken() {
    if (globalThis.document?.visibilityState === "hidden") return;
    if (this.#state === "waiting") this.#dial();
    else if (this.#state === "open" && this.#options.interval !== null && !this.#unanswered) this.#beat();
  }

  /** The current socket is done for, whoever says so. */
  #ended(code, reason, wasClean = false) {
    const end = { code, reason, wasClean };
    const again = this.#wantsAnother(end);
    if (this.#state === "closed") return; // shouldReconnect() called close()
    if (!again || this.#state === "closing") this.#finish(end);
    else this.#retry(end);
  }

  #wantsAnother(end) {
    if (this.#state === "closing" || this.#options.reconnect === null) return false;
    try {
      return this.shouldReconnect(end);
    } catch (error) {
      report(error);
      return false;
    }
  }

  #retry(end) {
    const wasOpen = this.#openedAt !== null;
    if (wasOpen && performance.now() - this.#openedAt >= STABLE_AFTER) this.#step = 0;
    this.#abandon();
    this.#move("waiting");
    this.#attempt += 1;
    this.#step += 1;
    const delay = backoffDelay(this.#options.reconnect, this.#step);
    const at = performance.now() + delay;
    this.#arm(delay, () => this.#dial());
    this.#post("close", { ...end, reconnecting: true, undelivered: [] });
    const reason = end.reason || (wasOpen ? `connection lost, code ${end.code}` : "no connection");
    this.#post("reconnecting", { attempt: this.#attempt, delay, at, reason });
  }

  #finish(end) {
    this.#abandon();
    this.#watch("removeEventListener");
    this.#move("closed");
    this.#post("close", { ...end, reconnecting: false, undelivered: this.#takeQueue() });
  }

  #abandon() {
    this.#disarm();
    this.#generation += 1;
    const socket = this.#socket;
    this.#socket = this.#openedAt = null;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close(); // does nothing to a closed one, and is never waited for
  }

  #enqueue(encoded) {
    const copy = new Blob([encoded]); // callers reuse buffers; and it knows the size in UTF-8
    const bytes = this.#queuedBytes + copy.size;
    if (this.#queue.length >= MAX_QUEUED_MESSAGES || bytes > MAX_QUEUED_BYTES) {
      throw new Error(`cannot send: ${this.#state}, and the queue is full`);
    }
    this.#queue.push(typeof encoded === "string" ? encoded : copy);
    this.#queuedBytes = bytes;
  }

  #takeQueue() {
    this.#queuedBytes = 0;
    return this.#queue.splice(0);
  }

  /**
   * Arms the one timer. After a sleep or under throttling it fires late, and the answer it waited for may lie
   * unread behind it: such a deadline starts afresh. Some clocks stand still in a sleep, so two are asked.
   */
  #arm(delay, action, freshStarts = 0) {
    this.#disarm();
    const due = performance.now() + delay;
    const dueByWallClock = Date.now() + delay;
    this.#timer = setTimeout(() => {
      const late = Math.max(performance.now() - due, Date.now() - dueByWallClock);
      if (freshStarts > 0 && late > Math.min(1000, delay / 2)) this.#arm(delay, action, freshStarts - 1);
      else action();
    }, delay);
  }

  #disarm() {
    clearTimeout(this.#timer);
  }

  #watch(addOrRemove) {
    globalThis[addOrRemove]?.("online", this.#wake);
    globalThis.document?.[addOrRemove]("visibilitychange", this.#wake);
  }

  #move(state) {
    const previous = this.#state;
    if (!TRANSITIONS[previous].includes(state)) throw new Error(`no way from ${previous} to ${state}`);
    this.#state = state;
    this.#post("state", { state, previous });
  }

  #post(event, detail) {
    this.#pending.push([event, detail]);
    if (this.#pending.length === 1) queueMicrotask(() => this.#emitPending());
  }

  #emitPending() {
    while (this.#pending.length) this.emit(...this.#pending.shift());
  }
}
