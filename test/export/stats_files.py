"""Columns of statistics as both reference implementations name them."""


def numbers(count: int, start: float = 0.0) -> dict[str, list[float]]:
    """Statistics of ``count`` columns that differ from each other."""
    rows = [start + 0.25 * i for i in range(count)]
    return {
        'mean': rows,
        'std': [0.5 + 0.1 * i for i in range(count)],
        'q01': [r - 1.0 for r in rows],
        'q99': [r + 1.5 for r in rows],
    }
