"""Draws the example pair: a ball with a face that jumps over a fence. Run from the repository's root."""

from pathlib import Path

from PIL import Image, ImageDraw

WIDTH, HEIGHT, SCALE = 512, 320, 4
INK, SKY, GRASS, WOOD, BALL = "#1d1b22", "#bfe3f5", "#8fc66b", "#c9935a", "#f2b134"


def scene(x: float, y: float, squash: float, *, lines_only: bool = False) -> Image.Image:
    """The scene with the ball at (x, y) in pixels; drawn large and reduced, so that lines are smooth."""
    image = Image.new("RGB", (WIDTH * SCALE, HEIGHT * SCALE), "white" if lines_only else SKY)
    draw = ImageDraw.Draw(image)

    def s(*values: float) -> list[float]:
        return [v * SCALE for v in values]

    def fill(colour: str) -> str:
        return "white" if lines_only else colour

    draw.rectangle(s(0, 240, WIDTH, HEIGHT), fill=fill(GRASS), outline=INK, width=3 * SCALE)
    draw.ellipse(s(400, 30, 460, 90), fill=fill("#fff3b0"), outline=INK, width=3 * SCALE)
    for left in (232, 252, 272):
        draw.polygon(
            s(left, 180, left + 8, 168, left + 16, 180, left + 16, 262, left, 262), fill=fill(WOOD), outline=INK
        )
        draw.line(
            s(left, 180, left + 8, 168, left + 16, 180, left + 16, 262, left, 262, left, 180), fill=INK, width=3 * SCALE
        )
    width, height = 36 * (1 + squash), 36 * (1 - squash)
    draw.ellipse(s(x - width, y - height, x + width, y + height), fill=fill(BALL), outline=INK, width=4 * SCALE)
    for eye in (-12, 12):
        draw.ellipse(s(x + eye - 5, y - 14, x + eye + 5, y), fill="white", outline=INK, width=2 * SCALE)
        draw.ellipse(s(x + eye - 1, y - 9, x + eye + 4, y - 3), fill=INK)
    draw.arc(s(x - 14, y - 6, x + 14, y + 18), 20, 160, fill=INK, width=3 * SCALE)
    return image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    folder = Path("examples/jump")
    folder.mkdir(parents=True, exist_ok=True)
    scene(110, 226, 0.12).save(folder / "first.png", optimize=True)
    scene(420, 226, 0.12).save(folder / "last.png", optimize=True)
    scene(260, 96, -0.08, lines_only=True).save(folder / "sketch_7.png", optimize=True)
