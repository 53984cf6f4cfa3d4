"""File names that are safe to print."""


def printable(text: str) -> str:
    """Escape characters that cannot be shown.

    File names may contain bytes that are not text, and control characters of
    the terminal.
    """
    return ''.join(
        character
        if character.isprintable() or character == '\n'
        else character.encode('unicode_escape').decode('ascii')
        for character in text
    )
