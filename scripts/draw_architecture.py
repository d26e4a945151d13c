"""Draw the architecture of MedBridge for README.md: docs/pictures/architecture-light.svg and -dark.svg.

    python scripts/draw_architecture.py

Only text and shapes, so that a change of a word is a change of one line here. Colours say what is frozen and what is trained.
"""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "pictures"
WIDTH, HEIGHT = 1120, 452
THEMES = {
    "light": {"text": "#1f2328", "faint": "#59636e", "line": "#8c959f", "frozen": "#ddebf7", "frozen_line": "#3b6ea5",
              "trained": "#fdeacb", "trained_line": "#b06a00", "film": "#eaeef2", "lung": "#59636e"},
    "dark": {"text": "#e6edf3", "faint": "#9aa4af", "line": "#768390", "frozen": "#16304a", "frozen_line": "#6cb0f0",
             "trained": "#46310c", "trained_line": "#f0b35a", "film": "#21262d", "lung": "#9aa4af"},
}
ROWS = (66, 176, 286)  # top of each expert's row
NAMES = ("VLM 1", "VLM 2", "VLM K")


class Picture:
    """Shapes in one theme; ``kind`` of a box is 'frozen', 'trained' or 'film'."""

    def __init__(self, theme: dict[str, str]) -> None:
        self.theme, self.parts = theme, []

    def box(self, x: float, y: float, w: float, h: float, kind: str, *lines: str) -> None:
        stroke = self.theme.get(f"{kind}_line", self.theme["line"])
        self.parts.append(f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="7" fill="{self.theme[kind]}" '
                          f'stroke="{stroke}"/>')
        for i, line in enumerate(lines):
            self.text(x + w / 2, y + h / 2 + 5 + 17 * (i - (len(lines) - 1) / 2), line, bold=i == 0)

    def text(self, x: float, y: float, words: str, bold: bool = False, faint: bool = False, anchor: str = "middle") -> None:
        self.parts.append(f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-size="{14 if bold else 12.5}" '
                          f'font-weight="{600 if bold else 400}" fill="{self.theme["faint" if faint else "text"]}">'
                          f'{escape(words)}</text>')

    def arrow(self, *points: tuple[float, float], dashed: bool = False) -> None:
        path = "M" + " L".join(f"{x} {y}" for x, y in points)
        self.parts.append(f'<path d="{path}" fill="none" stroke="{self.theme["line"]}" stroke-width="1.6" marker-end="url(#tip)"'
                          f'{" stroke-dasharray=" + chr(34) + "5 4" + chr(34) if dashed else ""}/>')

    def film(self, x: float, y: float, side: float) -> None:
        """A film with two lungs, and the windows that Focal Sampling cuts from it."""
        self.box(x, y, side, side, "film")
        for centre in (0.32, 0.68):
            self.parts.append(f'<ellipse cx="{x + centre * side}" cy="{y + 0.5 * side}" rx="{0.15 * side}" '
                              f'ry="{0.34 * side}" fill="none" stroke="{self.theme["lung"]}" stroke-width="2"/>')
        for dx, dy in ((0.05, 0.06), (0.47, 0.06), (0.05, 0.48), (0.47, 0.48)):
            self.parts.append(f'<rect x="{x + dx * side}" y="{y + dy * side}" width="{0.47 * side}" '
                              f'height="{0.47 * side}" fill="none" stroke="{self.theme["trained_line"]}" '
                              f'stroke-width="1.5" stroke-dasharray="5 3"/>')

    def svg(self) -> str:
        tip = (f'<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
               f'<path d="M0 0 L8 4 L0 8 z" fill="{self.theme["line"]}"/></marker></defs>')
        return "\n".join([
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
            'role="img" aria-label="Architecture of MedBridge" '
            'font-family="-apple-system, Segoe UI, Helvetica, Arial, sans-serif">',
            tip, *self.parts, "</svg>", ""])


def draw(theme: dict[str, str]) -> str:
    """The picture as SVG text."""
    p = Picture(theme)
    for x, words in ((75, "Focal Sampling"), (237, "frozen experts"), (421, "Query Encoder"), (574, "across views"),
                     (727, "class scores")):
        p.text(x, 40, words, bold=True)
    p.film(20, 150, 110)
    p.text(75, 282, "the whole film", faint=True)
    p.text(75, 299, "and its windows", faint=True)
    for top, name in zip(ROWS, NAMES, strict=True):
        middle = top + 35
        p.arrow((130, 205), (158, 205), (158, middle), (178, middle))
        p.box(180, top, 114, 70, "frozen", name, "maps of tokens")
        p.arrow((294, middle), (346, middle))
        p.box(348, top, 146, 70, "trained", "Q queries", "read the maps")
        p.arrow((494, middle), (518, middle))
        p.box(520, top, 108, 70, "trained", "N views → 1", "attend, pool")
        p.arrow((628, middle), (666, middle))
        p.box(668, top, 118, 70, "trained", "C prompts", "present − absent")
        p.arrow((786, middle), (836, middle))
    p.text(237, 274, "⋮", bold=True)
    p.box(838, 66, 120, 290, "trained", "mixture", "Σ gate × score")
    p.arrow((574, 356), (574, 386), (898, 386), (898, 358), dashed=True)
    p.text(736, 403, "the pooled queries drive the gate, for each film and label", faint=True)
    p.arrow((237, 356), (237, 424), (1028, 424), (1028, 248), dashed=True)
    p.text(640, 441, "linear read-out of the frozen summaries (this project's)", faint=True)
    p.arrow((958, 211), (978, 211))
    p.box(980, 176, 120, 70, "trained", "probabilities", "C findings")
    for x, word in ((980, "frozen"), (1042, "trained")):
        p.box(x - 18, 28, 13, 13, word)
        p.text(x, 40, word, anchor="start")
    return p.svg()


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, theme in THEMES.items():
        (FOLDER / f"architecture-{name}.svg").write_text(draw(theme), encoding="utf-8")


if __name__ == "__main__":
    main()
