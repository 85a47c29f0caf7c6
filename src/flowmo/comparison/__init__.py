"""Table 1, Figure 1: tokenizers and image codecs at equal bytes."""
