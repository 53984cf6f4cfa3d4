"""Turn a checkpoint of the EagleNet release into one for tools/test.py."""

from dataclasses import asdict

from converting import make_parser, parse_args, read_input, write_output

from eaglenet_mm.launching import spare_tracebacks
from eaglenet_mm.models.converters import convert_eaglenet_release


def main() -> None:
    """Convert, check, write and report."""
    args = parse_args(make_parser(__doc__))
    weights, model = read_input(args)
    ours, report = convert_eaglenet_release(weights, model=model)
    options = asdict(report.options)
    print('The checkpoint is of a model with')
    for name, value in options.items():
        print(f'  {name}: {value}')
    write_output(args, ours, report, options=options)


if __name__ == '__main__':
    spare_tracebacks()
    main()
