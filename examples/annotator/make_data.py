"""Writes the example's data: 200 documents in `documents.jsonl`, and the 256 bytes as a vocabulary."""

import base64
import json
from pathlib import Path

SENTENCE = "A colophon is the note at the end of a book that says where it came from. "


def main() -> None:
    """Write both files into the working directory."""
    documents = [
        {"id": f"doc-{i}", "url": f"https://site{i % 5}.example.org/{i}", "text": SENTENCE * (i % 7)}
        for i in range(200)
    ]
    Path("documents.jsonl").write_text("".join(json.dumps(document) + "\n" for document in documents))
    vocabulary = (f"{base64.b64encode(bytes([byte])).decode()} {byte}\n" for byte in range(256))
    Path("bytes.tiktoken").write_text("".join(vocabulary))


if __name__ == "__main__":
    main()
