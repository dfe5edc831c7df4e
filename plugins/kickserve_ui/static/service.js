// What the pages share: what the service gave them to begin with, and how they ask it.

import { wordsOf } from "./words.js";

export const boot = JSON.parse(document.getElementById("boot").textContent);
export const w = wordsOf(boot.language, boot.texts);

/**
 * Send a request to the service, its body as JSON, or a file as it is; an answer that is none throws, with the reason
 * in the service's words.
 */
export async function send(path, { body, ...options } = {}) {
  const [headers, content] = !body || body instanceof Blob ? [{}, body] : [{ "Content-Type": "application/json" }, JSON.stringify(body)];
  const response = await fetch(boot.root + path, { ...options, headers, body: content });
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  throw Object.assign(new Error(problem.detail ?? `${response.status}`), { answered: true, status: response.status });
}

/** The query of a kick's link, of some of its fields. */
export const queryOf = (kick, names) => new URLSearchParams(names.filter((name) => kick[name] !== "" && kick[name] !== undefined).map((name) => [name, kick[name]])).toString();

/** Why something was not done, for the visitor. */
export const reasonOf = (error) => (error.answered ? w.t("not_stored_error", { why: error.message }) : w.t("not_stored_offline"));

/** The place of a kick in words: "41 m, 24° left". */
export function placeOf({ distance, angle, side }) {
  const [metres, degrees] = [w.number(distance), Math.round(angle)];
  return degrees ? w.t("place", { distance: metres, angle: w.number(degrees), side: w.t(`of_${side}`) }) : w.t("place_front", { distance: metres });
}
