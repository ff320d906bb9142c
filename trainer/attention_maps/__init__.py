"""Where attention goes: `maps` asks, `parts` names what stands before a text, `bins` compares documents."""
