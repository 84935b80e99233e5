/** Convert TeX formulas to readable plain text, which keeps the characters of the source where possible. */

import { node } from "./nodes.js";

const LETTERS =
  "alpha α beta β gamma γ delta δ epsilon ε varepsilon ε zeta ζ eta η theta θ iota ι kappa κ lambda λ mu μ nu ν xi ξ pi π " +
  "rho ρ sigma σ tau τ upsilon υ phi φ varphi φ chi χ psi ψ omega ω Gamma Γ Delta Δ Theta Θ Lambda Λ Xi Ξ Pi Π Sigma Σ " +
  "Phi Φ Psi Ψ Omega Ω cdot · times × div ÷ pm ± mp ∓ le ≤ leq ≤ ge ≥ geq ≥ ne ≠ neq ≠ approx ≈ equiv ≡ sim ∼ propto ∝ " +
  "infty ∞ sum ∑ prod ∏ int ∫ partial ∂ nabla ∇ in ∈ notin ∉ subset ⊂ subseteq ⊆ cup ∪ cap ∩ emptyset ∅ forall ∀ exists ∃ " +
  "to → rightarrow → leftarrow ← Rightarrow ⇒ implies ⇒ iff ⇔ mapsto ↦ ldots … cdots ⋯ dots … circ ° degree ° prime ′ " +
  "langle ⟨ rangle ⟩ mid | neg ¬ land ∧ lor ∨ ell ℓ hbar ℏ";
const pairs = LETTERS.split(" ");
const SYMBOLS = new Map(pairs.flatMap((name, n) => (n % 2 ? [] : [[name, pairs[n + 1]]])));
const SILENT = /^(left|right|big|Big|bigg|Bigg|displaystyle|text|textbf|textit|mathrm|mathbf|mathit|mathcal|mathbb|operatorname|boxed|limits|begin|end)$/;
const PART = /\\([a-zA-Z]+|[^])|[{}]|[_^]|[^\\{}_^]+/y;
const SCRIPTS = { "^": "sup", _: "sub" };

/** The nodes of a formula between two positions of a text.
 * literal(from, to, shown): makes the nodes of a part, or of the text `shown` instead. */
export function formula(text, from, to, literal) {
  const nodes = [];
  const put = (at, end, shown) => shown !== "" && nodes.push(...literal(at, end, shown));
  /** An argument: its start, its end, and the position after it. */
  const argument = (at) => {
    while (at < to && text[at] === " ") at++;
    if (text[at] !== "{" || at >= to) {
      const end = at + /^(\\[a-zA-Z]+|\\?[^]|)/.exec(text.slice(at, to))[0].length;
      return { at, end, next: end };
    }
    let [depth, end] = [1, at + 1];
    for (; end < to && depth; end++) depth += { "{": 1, "}": -1 }[text[end]] ?? 0;
    return { at: at + 1, end: depth ? end : end - 1, next: end };
  };
  const inside = ({ at, end }) => formula(text, at, end, literal);
  /** An argument, in parentheses if it has several characters. */
  const closed = (part) =>
    /^(\\[a-zA-Z]+|[^]?)$/.test(text.slice(part.at, part.end)) ? inside(part) : ["(", ...inside(part), ")"];
  for (let at = from; at < to; ) {
    PART.lastIndex = at;
    const [part, command] = PART.exec(text);
    const end = Math.min(to, at + part.length);
    if (SCRIPTS[part]) {
      const script = argument(end);
      nodes.push(node(SCRIPTS[part], inside(script)));
      at = script.next;
    } else if (/^[dt]?frac$/.test(command)) {
      const above = argument(end);
      const below = argument(above.next);
      nodes.push(...closed(above), "/", ...closed(below));
      at = below.next;
    } else if (command === "sqrt") {
      const root = argument(end);
      put(at, end, "√");
      nodes.push(...closed(root));
      at = root.next;
    } else {
      if (part === "{" || part === "}" || SILENT.test(command)) put(at, end, "");
      else if (command === undefined) put(at, end);
      else if (/^[a-zA-Z]/.test(command)) put(at, end, SYMBOLS.get(command) ?? command);
      else put(at, end, /[,;:!\\ ]/.test(command) ? " " : command);
      at = end;
    }
  }
  return nodes;
}
