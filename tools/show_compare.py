"""Show results of several models side by side, for the same queries.

    python tools/show_compare.py RESULTS_A RESULTS_B ... --out compare.html

The folders are those of ``tools/test.py --show-dir``.
"""

import argparse

from eaglenet_mm.launching import spare_tracebacks
from eaglenet_mm.visualization import compare_page, read_results
from eaglenet_mm.visualization.compare_page import choose_names
from eaglenet_mm.visualization.results_file import write_text


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description='Show results of several models side by side'
    )
    add = parser.add_argument
    add('results', nargs='+', metavar='DIR', help='folders of 2 to 6 models')
    add('--out', required=True, help='HTML file to write')
    add('--names', nargs='+', help='of the models; default: their methods')
    return parser.parse_args()


def main() -> None:
    """Read the results and write the page."""
    args = parse_args()
    results = [read_results(folder) for folder in args.results]
    names = choose_names(results, args.results, args.names)
    page = compare_page(results, names)
    write_text(args.out, page)
    print(f'Written to {args.out} ({len(page) / 2**20:.1f} MiB).')


if __name__ == '__main__':
    spare_tracebacks()
    main()
