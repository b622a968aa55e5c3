"""A plot of how deliveries per second change with the number of streams, as SVG."""

import dataclasses
import math
import statistics

WIDTH, HEIGHT = 720, 440
LEFT, RIGHT, TOP, BOTTOM = 90, 30, 60, 60
SERIES = (("corecast", "ours", "#0b6e4f"), ("bare loop", "floor", "#b3541e"))


@dataclasses.dataclass(frozen=True)
class Point:
    """Deliveries per second at one number of streams: several measurements of each side."""

    streams: int
    ours: list
    floor: list


def write(file, points):
    """What costs the same per delivery at every size is level. Streams are on a logarithmic axis,
    deliveries on one that begins at zero, or small differences would look large."""
    most = max(value for point in points for value in point.ours + point.floor)
    x = logarithmic([point.streams for point in points], LEFT, WIDTH - RIGHT)
    y = from_zero(most, HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        text(WIDTH / 2, 24, "One message to all streams: deliveries per second", size=16),
        text(WIDTH / 2, HEIGHT - 14, "streams"),
    ]
    parts += grid(x, y, points, most)
    for number, (name, field, colour) in enumerate(SERIES):
        parts += line(x, y, points, field, colour)
        parts += legend(number, name, colour)
    parts.append("</svg>\n")
    file.write_text("\n".join(parts))


def logarithmic(values, start, end):
    """A function from a value to its place between `start` and `end`."""
    low, high = math.log(min(values) / 1.5), math.log(max(values) * 1.5)
    return lambda value: start + (end - start) * (math.log(value) - low) / (high - low)


def from_zero(most, start, end):
    """The same, proportional to the value."""
    return lambda value: start + (end - start) * value / (1.05 * most)


def grid(x, y, points, most):
    """Lines at each number of streams that was measured, and at round numbers of deliveries."""
    parts = []
    for point in points:
        place = x(point.streams)
        parts.append(rule(place, TOP, place, HEIGHT - BOTTOM))
        parts.append(text(place, HEIGHT - BOTTOM + 20, f"{point.streams:,}"))
    step = round_step(most)
    for value in range(0, int(most) + 1, step):
        place = y(value)
        parts.append(rule(LEFT, place, WIDTH - RIGHT, place))
        parts.append(text(LEFT - 8, place + 4, f"{value:,}", anchor="end"))
    return parts


def round_step(most):
    """1, 2 or 5 with zeros behind, so that there are at most eight steps."""
    decade = 10 ** int(math.log10(most))
    steps = (max(decade // 5, 1), max(decade // 2, 1), decade, 2 * decade)
    return next(step for step in steps if most / step <= 8)


def line(x, y, points, field, colour):
    """The medians, with a bar from the least to the most that was measured."""
    parts, places = [], []
    for point in points:
        values = getattr(point, field)
        place = x(point.streams)
        middle, low, high = y(statistics.median(values)), y(min(values)), y(max(values))
        places.append(f"{place:.1f},{middle:.1f}")
        parts.append(
            f'<line x1="{place:.1f}" y1="{low:.1f}" x2="{place:.1f}" y2="{high:.1f}" '
            f'stroke="{colour}" stroke-width="5" stroke-opacity="0.35"/>'
        )
        parts.append(f'<circle cx="{place:.1f}" cy="{middle:.1f}" r="4.5" fill="{colour}"/>')
    path = f'<polyline points="{" ".join(places)}" fill="none" stroke="{colour}" stroke-width="2"/>'
    return [path, *parts]


def legend(number, name, colour):
    place = LEFT + 130 * number
    return [
        f'<rect x="{place}" y="38" width="14" height="10" fill="{colour}"/>',
        text(place + 20, 47, name, anchor="start"),
    ]


def rule(x1, y1, x2, y2):
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#ddd"/>'
    )


def text(x, y, content, anchor="middle", size=13):
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"'
    return f"<text {place}>{content}</text>"
