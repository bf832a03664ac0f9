"""LangChain on every .txt of a folder: langchain.py FOLDER OUT.

Writes a line [document, chunk] for each chunk to OUT, and prints the least CPU seconds of three
rounds. RecursiveCharacterTextSplitter has no least size; the most is 2000 tokens of o200k_base.
"""

import json
import sys
import time
from pathlib import Path

from langchain_text_splitters import RecursiveCharacterTextSplitter

folder, out = map(Path, sys.argv[1:])
paths = sorted(folder.rglob("*.txt"))
texts = [(str(p.relative_to(folder).with_suffix("")), p.read_text(encoding="utf-8")) for p in paths]
splitter = RecursiveCharacterTextSplitter.from_tiktoken_encoder(
    encoding_name="o200k_base", chunk_size=2000, chunk_overlap=0, disallowed_special=()
)
splitter.split_text("Loads the vocabulary.")
least = float("inf")
for _ in range(3):
    begun = time.process_time()
    split = [(name, splitter.split_text(text)) for name, text in texts]
    least = min(least, time.process_time() - begun)
with out.open("w", encoding="utf-8") as file:
    for name, chunks in split:
        for chunk in chunks:
            file.write(json.dumps([name, chunk]) + "\n")
print(least)
