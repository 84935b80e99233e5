/** Elements, and trees of nodes from which elements are made.  After a change of a tree, only the changed part of the page
 * is drawn again.
 *
 * A node is a text, a result of `node`, or another object with a `key` (nodes with the same key look the same) and a
 * function `draw`. */

export const by = (id) => document.getElementById(id);

export function element(name, className = "", ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

export function button(text, act) {
  const made = Object.assign(element("button", "", text), { type: "button" });
  made.addEventListener("click", act);
  return made;
}

export const node = (name, children = [], properties = {}) => ({
  name,
  children,
  properties,
  key: name + JSON.stringify(properties),
});

/** Make the element of a node. */
export function draw(node) {
  if (typeof node === "string") return document.createTextNode(node);
  if (node.draw) return node.draw();
  const made = Object.assign(document.createElement(node.name), node.properties);
  made.append(...node.children.map(draw));
  return made;
}

/** Change an element's children from the nodes `before` to the nodes `after`. */
export function patch(parent, before, after) {
  after.forEach((node, n) => {
    const old = before[n];
    if (old === node) return;
    if (n >= before.length) parent.append(draw(node));
    else if (typeof node === "string" || old.key !== node.key) parent.childNodes[n].replaceWith(draw(node));
    else if (node.children) patch(parent.childNodes[n], old.children, node.children);
  });
  for (let n = after.length; n < before.length; n++) parent.lastChild.remove();
}
