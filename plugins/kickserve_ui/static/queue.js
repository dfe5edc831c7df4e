// What was recorded in matches: it stays in the browser, and each kick at goal goes to the service once.
//
// A kick has the id of its record from the start (a UUID of version 7), so it can be sent again where an answer got
// lost. Its entry is written by what the visitor does, how far it came by what is sent: two tabs don't overwrite each
// other.

import { boot, send } from "./service.js";

const PLACE = `kickserve ${boot.root} `;
const PATIENCE = 10000; // milliseconds for a call
const KICKS = new Set(["penalty", "conversion"]); // what the service knows

const storage = (() => {
  try {
    return localStorage;
  } catch {
    return null; // refused, as in a frame of another site: what is recorded lasts as long as the page
  }
})();
const memory = new Map();
const get = (key) => (storage ? storage.getItem(key) : memory.get(key)) ?? null;
const keys = () => (storage ? Object.keys(storage) : [...memory.keys()]);

export const load = (name) => JSON.parse(get(PLACE + name));
export const save = (name, value) => (storage ? storage.setItem(PLACE + name, JSON.stringify(value)) : memory.set(PLACE + name, JSON.stringify(value)));
const drop = (name) => (storage ? storage.removeItem(PLACE + name) : memory.delete(PLACE + name));

/** Call back when another tab has changed something. */
export const onOthers = (changed) => addEventListener("storage", ({ key }) => (key === null || key.startsWith(PLACE)) && changed());

/** Return the entries of all matches, oldest first, each with how far it came. */
export function entries() {
  const names = keys().filter((each) => each.startsWith(`${PLACE}entry `)).map((each) => each.slice(PLACE.length));
  return names.sort().map((name) => ({ ...load(name), sent: load(name.replace("entry", "sent")) }));
}

/** Write an entry down; without an id it is new. */
export function write(entry) {
  const { sent, ...own } = { ...entry, id: entry.id ?? newId() };
  save(`entry ${own.id}`, own);
}

/** Whether an entry has still to go to the service, or to be taken back there. */
export const isWaiting = ({ what, gone, sent }) => KICKS.has(what) && (gone ? sent !== null : !sent?.kept);

/** Forget the entries that are done with: those of other matches, and those that were taken back. */
export function forget(match) {
  for (const each of entries()) if (!isWaiting(each) && (each.gone || each.match !== match)) clear(each.id);
}

function clear(id) {
  drop(`entry ${id}`);
  drop(`sent ${id}`);
}

/**
 * Send what waits, oldest first; one tab does it at a time. A kick that the service refuses stays, and the others go.
 *
 * Throws where the rest has to wait: the service can't be reached, or wants the visitor to sign in.
 */
export async function deliver(rights) {
  let refusal;
  const all = async () => {
    for (const { id } of entries().filter(isWaiting)) {
      try {
        await deliverOne(id, rights);
      } catch (error) {
        if (error.status !== 422) throw error;
        refusal = error;
      }
    }
  };
  // There is no lock without https; the service takes a kick that two tabs send for one.
  if (navigator.locks) await navigator.locks.request(`${PLACE}deliver`, { ifAvailable: true }, (lock) => lock && all());
  else await all();
  if (refusal) throw refusal;
}

async function deliverOne(id, rights) {
  const { query, outcome, gone } = load(`entry ${id}`);
  if (gone) {
    await takeBack(id, rights);
    clear(id);
    return;
  }
  save(`sent ${id}`, {}); // from now on the service may have it
  const { probability } = await (await call("/record", { method: "POST", body: { id, query, success: outcome } })).json();
  if (load(`entry ${id}`)) save(`sent ${id}`, { kept: true, probability });
  else await takeBack(id, rights); // another tab has undone it at this very moment
}

async function takeBack(id, rights) {
  try {
    // Who may not delete leaves a kick without an outcome.
    await call(`/record/${id}`, rights.delete ? { method: "DELETE" } : { method: "PUT", body: { success: null } });
  } catch (error) {
    if (error.status !== 404) throw error; // it never came, or has been deleted
  }
}

const call = (path, options) => send(path, { ...options, signal: AbortSignal.timeout(PATIENCE) });

/** Make an id that sorts behind all before: 48 bits of milliseconds, and 73 of chance behind the bits of its kind. */
function newId() {
  const last = entries().at(-1)?.id.replaceAll("-", "").slice(0, 12) ?? "0";
  const time = Math.max(Date.now(), parseInt(last, 16) + 1).toString(16).padStart(12, "0");
  const chance = crypto.getRandomValues(new Uint8Array(10));
  chance[0] = 0x78 | (chance[0] & 7); // version 7, and the half of the ids that is the clients'
  chance[2] = 0x80 | (chance[2] & 0x3f);
  const hex = time + [...chance].map((each) => each.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}
