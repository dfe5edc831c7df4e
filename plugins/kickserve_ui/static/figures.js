// The figures of kickers: what the service sends of them, and what the page makes of a kicker's kicks.

import { DEPTH, WIDTH } from "./rugby.js";

const TYPES = { f4: Float32Array, i4: Int32Array, u1: Uint8Array };
const NO_DAY = -(2 ** 31);
const DAY = 86_400_000; // milliseconds
const SIDE = 1.96; // standard deviations to each side of a 95 % interval
const STEP = 0.5; // metres between the spots of a surface
const FIRST = 10; // kicks before which form says nothing

export const NEAR = 6; // metres: how far a kick counts around its spot (standard deviation)
export const PRIOR = 20; // kicks as expected that a surface has at every spot beside those that were taken
export const WINDOW = 20; // kicks that form looks back on
export const SCALE = 0.15; // difference that has the full colour

/** Read an answer (plugins/kickserve_ui/kickers.py writes it): the length of a JSON header, the header, columns. */
export function unpack(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const columns = {};
  let at = 4 + length;
  for (const [name, type] of header.kicks ?? []) {
    const size = header.count * TYPES[type].BYTES_PER_ELEMENT;
    columns[name] = new TYPES[type](buffer.slice(at, at + size));
    at += size;
  }
  return { ...header, kicks: header.kicks && columns };
}

/** Return the kick at a position of the columns. */
const kickAt = ({ distance, angle, left, chance, made, day, line }, at) => ({
  distance: distance[at],
  angle: angle[at],
  side: left[at] ? "left" : "right",
  chance: chance[at],
  made: made[at] === 1,
  date: day && day[at] !== NO_DAY ? new Date(day[at] * DAY) : null,
  line: line?.[at],
});

/** Return the kicks of a kicker, in the order of their days, where all have one, or else in that of the file. */
export function kicksOf(columns, kicker) {
  const places = [...columns.kicker.keys()].filter((at) => columns.kicker[at] === kicker);
  const kicks = places.map((at) => kickAt(columns, at));
  return kicks.every((each) => each.date) ? kicks.sort((one, other) => one.date - other.date) : kicks;
}

/** Return the hardest kick that each kicker made, and the easiest that each missed, by position of the label. */
export function extremes(columns, count) {
  const [hardest, easiest] = [new Array(count).fill(null), new Array(count).fill(null)];
  for (let at = 0; at < columns.chance.length; at++) {
    const kicker = columns.kicker[at];
    if (kicker < 0) continue;
    if (columns.made[at]) {
      if (hardest[kicker] === null || columns.chance[at] < columns.chance[hardest[kicker]]) hardest[kicker] = at;
    } else if (easiest[kicker] === null || columns.chance[at] > columns.chance[easiest[kicker]]) easiest[kicker] = at;
  }
  const taken = (places) => places.map((at) => (at === null ? null : kickAt(columns, at)));
  return { hardest: taken(hardest), easiest: taken(easiest) };
}

/**
 * Return the form of a kicker: at each kick the mean of made - expected over the last `WINDOW` kicks, and its 95 %
 * interval by the chance of each, ± 1.96·√Σ p·(1 - p) / n. Of the kicks of one day only the last has a place.
 */
export function formOf(kicks) {
  const found = kicks.slice(FIRST - 1).map((kick, at) => {
    const last = kicks.slice(Math.max(0, at + FIRST - WINDOW), at + FIRST);
    const value = last.reduce((sum, { made, chance }) => sum + made - chance, 0) / last.length;
    const half = (SIDE * Math.sqrt(last.reduce((sum, { chance }) => sum + chance * (1 - chance), 0))) / last.length;
    return { value, low: value - half, high: value + half, date: kick.date, number: at + FIRST };
  });
  return kicks.every(({ date }) => date) ? found.filter(({ date }, at) => +date !== +(found[at + 1]?.date ?? 0)) : found;
}

/**
 * Return made - expected around every spot of the pitch, as a map that heat.js draws: 0.5 is as expected.
 *
 * A kick counts by a normal curve of its distance from the spot. Where the kicks near a spot count for n, their mean
 * difference is multiplied by n / (n + PRIOR): few kicks show little, and none nothing.
 */
export function surfaceOf(kicks) {
  const [columns, rows] = [WIDTH / STEP + 1, DEPTH / STEP + 1];
  const [count, sum] = [new Float32Array(rows * columns), new Float32Array(rows * columns)];
  for (const kick of kicks) {
    const { x, out } = placeOn(kick);
    const [column, row] = [Math.round(x / STEP), Math.round(out / STEP)];
    if (column < 0 || row < 0 || column >= columns || row >= rows) continue;
    count[row * columns + column] += 1;
    sum[row * columns + column] += kick.made - kick.chance;
  }
  const [near, difference] = [count, sum].map((plane) => spread(plane, rows, columns));
  const found = difference.map((each, at) => each / (near[at] + PRIOR));
  const probability = found.map((each) => Math.min(Math.max(0.5 + each / (2 * SCALE), 0), 1));
  return { rows, columns, step: STEP, difference: found, probability, warned: new Uint8Array(rows * columns) };
}

/** Return where on the pitch a kick was taken, in metres. */
export function placeOn({ distance, angle, side }) {
  const aside = distance * Math.sin((angle * Math.PI) / 180);
  return { x: WIDTH / 2 + (side === "left" ? -aside : aside), out: distance * Math.cos((angle * Math.PI) / 180) };
}

/** Add up a plane around each spot, weighted by a normal curve that is 1 at the spot itself. */
function spread(plane, rows, columns) {
  const reach = Math.round((3 * NEAR) / STEP);
  const weights = Float32Array.from({ length: reach + 1 }, (_, at) => Math.exp(-0.5 * ((at * STEP) / NEAR) ** 2));
  const along = (from, length, step, lines, next) => {
    const to = new Float32Array(from.length);
    for (let line = 0; line < lines; line++)
      for (let at = 0; at < length; at++) {
        const value = from[line * next + at * step];
        if (!value) continue;
        for (let other = Math.max(0, at - reach); other <= Math.min(length - 1, at + reach); other++)
          to[line * next + other * step] += value * weights[Math.abs(other - at)];
      }
    return to;
  };
  return along(along(plane, columns, 1, rows, columns), rows, columns, columns, 1);
}

/** Compare two rows of the table: how many more of 100 kicks the first makes above expected, and its 95 % interval. */
export function compare(one, other) {
  const [rate, half] = [(row) => (100 * row.above) / row.kicks, (row) => (50 * (row.above_to - row.above_from)) / row.kicks];
  const [value, side] = [rate(one) - rate(other), Math.hypot(half(one), half(other))];
  return { value, low: value - side, high: value + side };
}
