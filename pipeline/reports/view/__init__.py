"""The live page of `colophon view`: search a run's documents, read them, see their sequences in each layout.

`documents` numbers the documents and reads rows; `filters` turns conditions on annotation columns into queries;
`texts` decodes tokens; `search` finds documents in an order that a newer search can interrupt; `calls` is what the page
may ask for; `server` answers on loopback alone. Nothing here writes.

Texts are decoded from the token files, because the law of a tokenizer is that the ids of a text decode to the text.
Any document is then one read away, whatever the format of the input, and wherever the input is now.
"""
