"""Pages that read files and draw: offline HTML with SVG figures, and the same figures as PNG."""
