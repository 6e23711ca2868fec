"""The network as everything else sees it: its input, its layers and what they give, its prediction, its provenance."""
