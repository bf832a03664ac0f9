#!/bin/sh
# Fetches the papers of papers.tsv from Debian's packages (bookworm), as root or not, into
# papers/<name>.pdf, and the source text of those that have one into sources/<name>.<kind>.
# Nothing of it is committed. Needs apt-get, dpkg and gzip; about 240 MB are downloaded, once.
# Usage: fetch.sh [FOLDER]    default: the folder of this script
set -eu
here=$(cd "$(dirname "$0")" && pwd)
to=${1:-$here}
mkdir -p "$to/packages" "$to/papers" "$to/sources"
to=$(cd "$to" && pwd)
tab=$(printf '\t')

list() { tail -n +2 "$here/papers.tsv"; }

# The file $1, or what it holds if it is gzipped.
plain() { case $1 in *.gz) gzip -dc "$1" ;; *) cat "$1" ;; esac; }

list | cut -f3 | sort -u | while read -r package; do
    [ -d "$to/packages/$package" ] && continue
    (cd "$to/packages" && apt-get download "$package")
    # Unpacked aside, so that a folder that is there is whole.
    dpkg -x "$to/packages/${package}_"*.deb "$to/packages/$package.part"
    mv "$to/packages/$package.part" "$to/packages/$package"
done

list | while IFS=$tab read -r name _ package pdf source; do
    plain "$to/packages/$package/$pdf" > "$to/papers/$name.pdf"
    [ -z "$source" ] && continue
    kind=${source%.gz}
    plain "$to/packages/$package/$source" > "$to/sources/$name.${kind##*.}"
done
echo "$(find "$to/papers" -name '*.pdf' | wc -l) papers, $(find "$to/sources" -type f | wc -l) sources in $to"
