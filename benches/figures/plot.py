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
    """Both axes are logarithmic: what costs the same per delivery at every size is level."""
    values = [value for point in points for value in point.ours + point.floor]
    x = axis([point.streams for point in points], LEFT, WIDTH - RIGHT)
    y = axis(values, HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        text(WIDTH / 2, 24, "One message to all streams: deliveries per second", size=16),
        text(WIDTH / 2, HEIGHT - 14, "streams"),
    ]
    parts += grid(x, y, points, values)
    for number, (name, field, colour) in enumerate(SERIES):
        parts += line(x, y, points, field, colour)
        parts += legend(number, name, colour)
    parts.append("</svg>\n")
    file.write_text("\n".join(parts))


def axis(values, start, end):
    """A function from a value to its place between `start` and `end`."""
    low, high = bounds(values)
    scale = (end - start) / (math.log(high) - math.log(low))
    return lambda value: start + scale * (math.log(value) - math.log(low))


def bounds(values):
    """A little more than the values, and never nothing."""
    return min(values) / 1.25, max(values) * 1.25


def grid(x, y, points, values):
    """Lines at each number of streams that was measured, and at round numbers of deliveries."""
    parts = []
    for point in points:
        place = x(point.streams)
        parts.append(rule(place, TOP, place, HEIGHT - BOTTOM))
        parts.append(text(place, HEIGHT - BOTTOM + 20, f"{point.streams:,}"))
    for value in round_numbers(*bounds(values)):
        place = y(value)
        parts.append(rule(LEFT, place, WIDTH - RIGHT, place))
        parts.append(text(LEFT - 8, place + 4, f"{value:,}", anchor="end"))
    return parts


def round_numbers(low, high):
    """1, 2 and 5 with any zeros behind, from `low` to `high`."""
    decades = range(int(math.log10(low)), int(math.log10(high)) + 1)
    candidates = [digit * 10**decade for decade in decades for digit in (1, 2, 5)]
    return [value for value in candidates if low <= value <= high]


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
