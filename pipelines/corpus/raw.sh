#!/bin/sh
# Fills raw/<pillar>/ as pillars.tsv says with papers of Debian. The three links there are the notes of
# the quickstart. Usage: raw.sh [FOLDER]    where fetch.sh put the papers; default: it is run, here
set -eu
cd "$(dirname "$0")"
from=${1:-.}
[ -d "$from/papers" ] || ./fetch.sh
tab=$(printf '\t')
tail -n +2 pillars.tsv | while IFS=$tab read -r pillar paper; do
    mkdir -p "raw/$pillar"
    cp "$from/papers/$paper.pdf" "raw/$pillar/"
done
echo "$(find -L raw -name '*.pdf' | wc -l) papers in raw"
