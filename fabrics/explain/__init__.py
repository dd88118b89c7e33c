"""A fabric explained on its own numbers: sections that the terminal and the page both draw."""
