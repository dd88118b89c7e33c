"""How chunked cross-entropy cuts the tokens of a micro-batch."""

TILE_ROWS = 128
"""Rows of a chunk are a multiple of this: the tile of a GPU's matrix product."""


def chunk_rows(tokens: int, width: int, vocabulary: int) -> int:
    """Tokens whose logits are held at a time: so many that these logits are about as large as the hidden states of all tokens."""
    like_hidden_states = -(-tokens * width // vocabulary)
    return min(tokens, -(-like_hidden_states // TILE_ROWS) * TILE_ROWS)
