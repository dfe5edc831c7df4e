// The heat map: the model's answer at every spot of the pitch, as the service sends it and as it is drawn.

const WHOLE = 32767; // of 15 bits: a probability of 1
const LEVELS = [0.2, 0.4, 0.6, 0.8]; // of the contours
const PALE = 0.47; // opacity outside the range of the model

/** Read the only map, or the first, of what the service sends. */
export const decode = (buffer) => decodeAll(buffer)[0];

/**
 * Read maps (plugins/kickserve_ui/heat_map.py writes them): the length of a JSON header, the header, which has the
 * conditions of each map; map by map a 16-bit word a spot, 15 bits of probability and one for a warning; and a byte a
 * spot for each end of the interval, if there is one.
 */
export function decodeAll(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const count = header.rows * header.columns;
  const all = count * header.conditions.length;
  const words = new Uint16Array(buffer.slice(4 + length, 4 + length + 2 * all));
  const ends = new Uint8Array(buffer, 4 + length + 2 * all);
  return header.conditions.map((conditions, at) => {
    const own = words.subarray(at * count, (at + 1) * count);
    const end = (upper) => (ends.length ? Float32Array.from(ends.subarray(upper * all + at * count, upper * all + (at + 1) * count), (each) => each / 255) : null);
    return {
      ...header,
      conditions,
      probability: Float32Array.from(own, (each) => (each >> 1) / WHOLE),
      warned: Uint8Array.from(own, (each) => each & 1),
      low: end(0),
      high: end(1),
    };
  });
}

/** Return a map with more spots between its own, on smooth curves through them (Catmull and Rom's splines). */
export function refine(map, factor) {
  const { rows, columns } = map;
  const [tall, wide] = [(rows - 1) * factor + 1, (columns - 1) * factor + 1];
  const smooth = (plane) => {
    const across = new Float32Array(rows * wide);
    for (let row = 0; row < rows; row++) for (let x = 0; x < wide; x++) across[row * wide + x] = curveAt(plane, row * columns, 1, columns, x / factor);
    const all = new Float32Array(tall * wide);
    for (let y = 0; y < tall; y++) for (let x = 0; x < wide; x++) all[y * wide + x] = Math.min(Math.max(curveAt(across, x, wide, rows, y / factor), 0), 1);
    return all;
  };
  const [probability, low, high] = [map.probability, map.low, map.high].map((plane) => plane && smooth(plane));
  return { ...map, rows: tall, columns: wide, step: map.step / factor, probability, low, high, warned: Uint8Array.from(smooth(blurred(Float32Array.from(map.warned), rows, columns)), Math.round) };
}

/** Return the value between the entries of a line: `count` of them, `step` apart from `start` on. */
function curveAt(plane, start, step, count, position) {
  const at = Math.min(Math.floor(position), count - 2);
  const part = position - at;
  const [b, c] = [plane[start + step * at], plane[start + step * (at + 1)]];
  const [a, d] = [plane[start + step * Math.max(at - 1, 0)], plane[start + step * Math.min(at + 2, count - 1)]];
  return b + 0.5 * part * (c - a + part * (2 * a - 5 * b + 4 * c - d + part * (3 * (b - c) + d - a)));
}

/** Return the answer at a spot in metres, between the map's own spots; null beyond the map. */
export function sample(map, x, out) {
  const [column, row] = [x / map.step, out / map.step];
  if (!(column >= 0 && row >= 0 && column <= map.columns - 1 && row <= map.rows - 1)) return null;
  const [left, top] = [Math.min(Math.floor(column), map.columns - 2), Math.min(Math.floor(row), map.rows - 2)];
  const [across, down] = [column - left, row - top];
  const at = top * map.columns + left;
  const between = (plane) =>
    (1 - down) * ((1 - across) * plane[at] + across * plane[at + 1]) +
    down * ((1 - across) * plane[at + map.columns] + across * plane[at + map.columns + 1]);
  return {
    probability: between(map.probability),
    interval: map.low && [between(map.low), between(map.high)],
    warned: map.warned[Math.round(row) * map.columns + Math.round(column)] === 1,
  };
}

/**
 * Return the lines on which a plane of the map has a value, by marching squares: an SVG path in metres, and the
 * spots it goes through.
 */
export function contour(map, plane, level) {
  const { rows, columns, step } = map;
  const parts = [];
  const spots = [];
  for (let row = 0; row < rows - 1; row++) {
    for (let column = 0; column < columns - 1; column++) {
      const at = row * columns + column;
      const corners = [plane[at], plane[at + 1], plane[at + columns + 1], plane[at + columns]];
      const above = corners.map((each) => each >= level);
      if (above.every((each) => each === above[0]) || corners.some(Number.isNaN)) continue;
      const crossings = [];
      for (let side = 0; side < 4; side++) {
        const next = (side + 1) % 4;
        if (above[side] === above[next]) continue;
        const part = (level - corners[side]) / (corners[next] - corners[side]);
        const [x, out] = [[column + part, row], [column + 1, row + part], [column + 1 - part, row + 1], [column, row + 1 - part]][side];
        crossings.push([x * step, out * step]);
      }
      for (let one = 0; one + 1 < crossings.length; one += 2) {
        const [[x, out], [toX, toOut]] = [crossings[one], crossings[one + 1]];
        parts.push(`M${x.toFixed(1)} ${out.toFixed(1)}L${toX.toFixed(1)} ${toOut.toFixed(1)}`);
        spots.push(crossings[one]);
      }
    }
  }
  return { path: parts.join(""), spots };
}

/** Return the contours of a map at some levels, each with a label where there is room for it. */
export function levelLines(map, percent) {
  const found = LEVELS.map((level) => ({ name: `level-${100 * level}`, text: percent(level), ...contour(map, map.probability, level) }));
  const [middle, depth] = [((map.columns - 1) * map.step) / 2, (map.rows - 1) * map.step];
  const labels = placeLabels(found.map((each) => each.spots), middle, depth, 2);
  return found.map((each, at) => ({ ...each, label: labels[at] }));
}

/** Return a spot for each label on its line, as near the middle as there is room; null where there is none. */
export function placeLabels(lines, middle, depth, room) {
  const placed = [];
  return lines.map((spots) => {
    const free = ([x, out]) => out > room && out < depth - room / 2 && placed.every(([otherX, otherOut]) => Math.hypot(x - otherX, out - otherOut) > 2 * room);
    const found = spots.filter(free).sort((one, other) => Math.abs(one[0] - middle) - Math.abs(other[0] - middle))[0];
    if (found) placed.push(found);
    return found ?? null;
  });
}

/** Return red, green and blue of each of 256 levels of probability. */
export function coloursOf(stops) {
  const parsed = stops.map((stop) => [1, 3, 5].map((at) => parseInt(stop.slice(at, at + 2), 16)));
  return Array.from({ length: 256 }, (_, level) => {
    const place = (level / 255) * (parsed.length - 1);
    const at = Math.min(Math.floor(place), parsed.length - 2);
    return parsed[at].map((low, channel) => low + (parsed[at + 1][channel] - low) * (place - at));
  });
}

/** Draw the map, a pixel a spot; where the model warns it is pale, with a soft edge. */
export function draw(canvas, map, colours) {
  const { rows, columns } = map;
  [canvas.width, canvas.height] = [columns, rows];
  const image = new ImageData(columns, rows);
  const pale = blurred(blurred(Float32Array.from(map.warned), rows, columns), rows, columns);
  for (let at = 0; at < rows * columns; at++) {
    const [red, green, blue] = colours[Math.round(255 * map.probability[at])];
    image.data.set([red, green, blue, 255 * (1 - (1 - PALE) * pale[at])], 4 * at);
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function blurred(plane, rows, columns) {
  return plane.map((_, at) => {
    const [row, column] = [Math.floor(at / columns), at % columns];
    let [sum, count] = [0, 0];
    for (let y = Math.max(row - 1, 0); y <= Math.min(row + 1, rows - 1); y++)
      for (let x = Math.max(column - 1, 0); x <= Math.min(column + 1, columns - 1); x++) [sum, count] = [sum + plane[y * columns + x], count + 1];
    return sum / count;
  });
}
