# SPDX-License-Identifier: GPL-2.0
"""Shared by bench-table, soak-table and tested-table: put texts made from data between markers of a document."""

import re
import sys
import textwrap

sys.dont_write_bytecode = True


def put_into(document, texts):
    """Put each text between <!-- data: NAME --> and <!-- /data --> of a document, which has those markers once."""
    content = document.read_text(encoding="utf-8")
    for name, text in texts.items():
        section = re.compile(rf"(<!-- data: {name} -->\n).*?\n?(<!-- /data -->)", re.DOTALL)
        content, count = section.subn(lambda match, text=text: f"{match[1]}\n{text}\n\n{match[2]}", content)
        if count != 1:
            sys.exit(f"{document}: {count} places for {name}")
    document.write_text(content, encoding="utf-8")


def bullets(*texts):
    """A list in Markdown."""
    wrapper = textwrap.TextWrapper(130, initial_indent="- ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return "\n".join(map(wrapper.fill, texts))


def conditions(head):
    """What the figures of a file hold for, as one paragraph."""
    return "; ".join(line for line in head if ": " in line and not line.startswith("SPDX"))


def table(rows):
    """A table in Markdown, with columns in line. The first row is its headings; columns in which nothing stands are
    left out."""
    columns = [column for column in zip(*rows) if any(column[1:])]
    widths = [max(map(len, column)) for column in columns]
    rows = list(zip(*columns))
    rows.insert(1, ["-" * width for width in widths])

    def pad(index, cell):
        # Words are left-justified, and what stands between them are numbers.
        return cell.ljust(widths[index]) if index in (0, len(widths) - 1) else cell.rjust(widths[index])

    return "\n".join(f"| {' | '.join(pad(i, cell) for i, cell in enumerate(row))} |" for row in rows)
