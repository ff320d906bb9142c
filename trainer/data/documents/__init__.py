"""`order = "documents"`: the text of all documents as one line (`text_line`), the part of it that each update trains on
(`order`), its segments in rows (`assembly`), the batches (`updates`)."""
