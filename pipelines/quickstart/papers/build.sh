#!/usr/bin/env bash
# Rebuild the notes: build.sh [name ...]   (all of src/*.tex, but for the preamble, without a name)
# Same source and same TeX distribution, same bytes; another distribution may give other bytes for the same pages.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export SOURCE_DATE_EPOCH=1577836800 FORCE_SOURCE_DATE=1 TZ=UTC LC_ALL=C
if [ $# -eq 0 ]; then
    for tex in "$here"/src/*.tex; do
        [ "$tex" = "$here/src/preamble.tex" ] || set -- "$@" "$(basename "$tex" .tex)"
    done
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
for name in "$@"; do
    [ -f "$here/src/$name.tex" ] || { echo "build.sh: no src/$name.tex" >&2; exit 2; }
    work=$scratch/$name
    mkdir "$work"
    cp "$here/src/$name.tex" "$here/src/preamble.tex" "$work/"
    for pass in 1 2 3; do # references settle by the third
        (cd "$work" && pdflatex -interaction=nonstopmode -halt-on-error -file-line-error "$name.tex" >"pass$pass.out") ||
            { tail -n 30 "$work/pass$pass.out" >&2; exit 1; }
    done
    grep -E '^(Overfull|LaTeX Warning)' "$work/$name.log" | sed "s/^/$name: /" >&2 || true
    mv "$work/$name.pdf" "$here/$name.pdf"
    echo "$name.pdf"
done
