// Where the steps of a run are drawn: layers from top to bottom, blocks and for_each as boxes that can be folded. Pure;
// places are in CSS pixels.

export const SIZES = {
  full: { w: 212, h: 46, gapX: 16, gapY: 34, wrapY: 12, pad: 14, head: 34 },
  compact: { w: 26, h: 26, gapX: 6, gapY: 18, wrapY: 6, pad: 8, head: 26 },
};
/// Room for the line that marks the point of no return.
const LINE = 30;

/// `nodes` = [{ id, parent, needs, irreversible, finally }], parents before their children, indexes into the list.
export class Tree {
  constructor(nodes) {
    this.nodes = nodes;
    this.children = nodes.map(() => []);
    this.roots = [];
    this.finals = [];
    nodes.forEach((node, at) => {
      if (node.parent !== null) this.children[node.parent].push(at);
      else (node.finally ? this.finals : this.roots).push(at);
    });
    this.depth = [];
    nodes.forEach((node, at) => (this.depth[at] = node.parent === null ? 0 : this.depth[node.parent] + 1));
  }

  isGroup(at) {
    return this.children[at].length > 0;
  }

  /// The one of `siblings` that is, or has inside, a node.
  lift(at, depth) {
    while (at !== null && this.depth[at] > depth) at = this.nodes[at].parent;
    return at;
  }

  /// Everything under a node.
  *inside(at) {
    for (const child of this.children[at]) {
      yield child;
      yield* this.inside(child);
    }
  }
}

/// The longest way from the start, per sibling. What stands in a circle (it cannot) is put first.
function layers(siblings, needs) {
  const at = new Map(siblings.map((node, i) => [node, i]));
  const before = siblings.map((node) => needs(node).map((need) => at.get(need)).filter((i) => i !== undefined));
  const after = siblings.map(() => []);
  const left = before.map((list, i) => {
    for (const need of list) after[need].push(i);
    return list.length;
  });
  const layer = new Array(siblings.length).fill(0);
  const todo = left.flatMap((n, i) => (n === 0 ? [i] : []));
  while (todo.length) {
    const i = todo.pop();
    for (const next of after[i]) {
      layer[next] = Math.max(layer[next], layer[i] + 1);
      if (--left[next] === 0) todo.push(next);
    }
  }
  const rows = [];
  layer.forEach((row, i) => (rows[row] ??= []).push(i));
  return { rows: rows.filter(Boolean), before };
}

/// Each row in the order of what it needs, so that few edges cross.
function order(rows, before) {
  const place = [];
  for (const row of rows) {
    const wish = new Map(row.map((i) => {
      const above = before[i].map((need) => place[need]).filter((p) => p !== undefined);
      return [i, above.length ? above.reduce((a, b) => a + b) / above.length : -1];
    }));
    if (row.some((i) => wish.get(i) >= 0)) row.sort((a, b) => wish.get(a) - wish.get(b) || a - b);
    row.forEach((i, n) => (place[i] = (n + 0.5) / row.length));
  }
}

class Layout {
  constructor(tree, folded, sizes) {
    this.tree = tree;
    this.folded = folded;
    this.sizes = sizes;
    this.boxes = [];
    this.edges = [];
    this.lines = [];
  }

  /// Siblings in a box of this width, with their left top at (0, 0). Moves nothing that is outside.
  place(siblings, width) {
    const { tree, sizes } = this;
    if (!siblings.length) return { w: 0, h: 0, put: () => {} };
    const depth = tree.depth[siblings[0]];
    const needs = (node) => {
      const all = [...tree.nodes[node].needs, ...(this.deep.get(node) ?? [])];
      return all.map((need) => tree.lift(need, depth)).filter((need) => need !== null && need !== node);
    };
    const { rows, before } = layers(siblings, needs);
    order(rows, before);
    const placed = [];
    const lines = [];
    let y = 0, wide = 0;
    for (const row of rows) {
      const parts = [];
      let line = [], x = 0, high = 0;
      const wrap = () => {
        if (!line.length) return;
        parts.push({ line, w: x - sizes.gapX, y, h: high });
        wide = Math.max(wide, x - sizes.gapX);
        y += high + sizes.wrapY;
        [line, x, high] = [[], 0, 0];
      };
      for (const i of row) {
        const one = this.size(siblings[i], width);
        if (x > 0 && x + one.w > width) wrap();
        line.push({ node: siblings[i], one, x });
        x += one.w + sizes.gapX;
        high = Math.max(high, one.h);
      }
      wrap();
      const many = parts.length > 1 && parts[0].line.length > 1;
      placed.push(...parts.map((part) => ({ ...part, many })));
      y += sizes.gapY - sizes.wrapY;
      const points = row.map((i) => siblings[i]).filter((node) => tree.nodes[node].irreversible);
      if (points.length) {
        lines.push({ y: y - sizes.gapY / 2 + LINE / 2 + 1, points });
        y += LINE;
      }
    }
    const h = y - sizes.gapY;
    const put = (left, top) => {
      for (const { line, w, y, many } of placed) {
        // A row by itself stands in the middle; rows of one layer stand in columns.
        const shift = many ? 0 : (wide - w) / 2;
        for (const { node, one, x } of line) {
          this.boxes[node] = { node, x: left + shift + x, y: top + y, w: one.w, h: one.h, group: one.open };
          one.put?.(left + shift + x, top + y);
        }
      }
      siblings.forEach((node, i) => {
        for (const need of new Set(before[i])) this.edges.push(siblings[need], node);
      });
      for (const { y, points } of lines) this.lines.push({ x: left, y: top + y, w: wide, points });
    };
    return { w: wide, h, put };
  }

  size(node, width) {
    const { tree, sizes } = this;
    if (!tree.isGroup(node) || this.folded.has(node)) return { w: sizes.w, h: sizes.h, open: false };
    const inner = this.place(tree.children[node], Math.max(sizes.w, width - 2 * sizes.pad));
    return {
      w: Math.max(inner.w + 2 * sizes.pad, sizes.w), h: inner.h + sizes.head + sizes.pad, open: true,
      put: (x, y) => inner.put(x + sizes.pad, y + sizes.head),
    };
  }

  /// What steps inside a box need outside of it, the box needs.
  lifted() {
    const { nodes } = this.tree;
    this.deep = new Map();
    nodes.forEach((node) => {
      if (node.parent === null) return;
      for (const need of node.needs) {
        if (nodes[need].parent === node.parent) continue;
        for (let at = node.parent; at !== null; at = nodes[at].parent) {
          if (this.tree.lift(need, this.tree.depth[at]) === at) break;
          if (!this.deep.has(at)) this.deep.set(at, new Set());
          this.deep.get(at).add(need);
        }
      }
    });
  }
}

/// Boxes by node (undefined: hidden in one that is folded), edges as pairs of nodes, lines, and the size of it all.
export function layout(tree, folded, width, sizes) {
  const made = new Layout(tree, folded, sizes);
  made.lifted();
  const main = made.place(tree.roots, width);
  main.put(Math.max(0, (Math.min(width, main.w) - main.w) / 2), 0);
  let height = main.h;
  let finallyAt = null;
  if (tree.finals.length) {
    finallyAt = height + sizes.gapY;
    const last = made.place(tree.finals, width);
    last.put(Math.max(0, (main.w - last.w) / 2), finallyAt + LINE);
    height = finallyAt + LINE + last.h;
  }
  const w = Math.max(...made.boxes.filter(Boolean).map((b) => b.x + b.w), 0);
  return { boxes: made.boxes, edges: made.edges, lines: made.lines, w, h: height, finallyAt };
}

/// What crosses which stretch of the height: finds what is in view without looking at all of it.
export class Stretches {
  constructor(height, step = 400) {
    this.step = step;
    this.all = Array.from({ length: Math.ceil(height / step) + 1 }, () => []);
    /// Those that cross many.
    this.long = [];
  }

  add(item, top, bottom) {
    const [from, to] = [Math.floor(top / this.step), Math.floor(bottom / this.step)];
    if (to - from > 8) this.long.push({ item, top, bottom });
    else for (let i = from; i <= to; i++) this.all[i]?.push(item);
  }

  between(top, bottom) {
    const found = new Set();
    for (let i = Math.max(0, Math.floor(top / this.step)); i <= Math.floor(bottom / this.step); i++) {
      for (const item of this.all[i] ?? []) found.add(item);
    }
    for (const one of this.long) if (one.top <= bottom && one.bottom >= top) found.add(one.item);
    return found;
  }
}
