"""Questions about documents to a language model behind an OpenAI-compatible endpoint, and its answers."""
